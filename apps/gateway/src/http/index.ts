export { corsHeaders, preflightHeaders } from './cors.js';
export { type Credentials, forwardedHeaders, pushIdentity } from './forwarded.js';
export { plainAddress } from './plain-address.js';
export { callerAddress, hasBody, normalHeaderName, type RequestHead, readHead } from './request-head.js';
export { type ResponsePolicy, readResponseHead, type UpstreamHeaders } from './response-head.js';
export { type ErrorResponse, renderError, sendError, sendErrorAndClose, sendJson } from './responses.js';
export { type BadTarget, readTarget, type Target } from './target.js';
