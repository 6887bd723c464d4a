export { Answer, Call, Caller, Input, type InputOf, Prefer } from './call.js';
export { type RequestContext, requestContext } from './context.js';
export { DocsController } from './docs.controller.js';
export * from './http.errors.js';
export { checkIdempotencyKey, parseWith } from './parse.js';
export { cookieName, createAdapter, ENDPOINT_METADATA, type LatchkeyRequest, readCookie } from './server.js';
export { atMultiplesOf } from './steady.js';
