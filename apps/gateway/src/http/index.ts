export { type BodyReader, ChunkedBody, LengthBody, UntilCloseBody } from './body.js';
export { corsLines, isPreflight, preflightLines } from './cors.js';
export { fieldValue } from './fields.js';
export { type Credentials, forwardedLines, identityLines } from './forwarded.js';
export { callerAddress, type Peer, peerOf } from './peer.js';
export { plainAddress } from './plain-address.js';
export { normalHeaderName } from './request-fields.js';
export { isMethod, RequestHead } from './request-head.js';
export { ResponseHead, type ResponsePolicy } from './response-head.js';
export { type ErrorResponse, RETRY_AFTER_S, renderError } from './responses.js';
export { FIELDS_MAX, HeadScan, TOO_MANY } from './scan.js';
export {
  type BadTarget,
  ENCODED_SLASH_REFUSED,
  readTarget,
  TARGET_LENGTH_MAX,
  type Target,
} from './target.js';
