export { type BodyReader, ChunkedBody, LengthBody, UntilCloseBody } from './body.js';
export { corsLines, isPreflight, preflightLines } from './cors.js';
export { isClean, valueOf } from './fields.js';
export { type Credentials, forwardedLines, identityLines } from './forwarded.js';
export { plainAddress } from './plain-address.js';
export { callerAddress, normalHeaderName, type Peer, peerOf, RequestHead } from './request-head.js';
export { ResponseHead, type ResponsePolicy } from './response-head.js';
export { type ErrorResponse, RETRY_AFTER_S, renderError } from './responses.js';
export { type BadTarget, readTarget, TARGET_LENGTH_MAX, type Target } from './target.js';
