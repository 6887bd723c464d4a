export { Call, Caller, HttpResponse, Input, type InputOf, mediaTypeOf, Person, Prefer } from './call.js';
export { type RequestContext, requestContext } from './context.js';
export { cookieName, readCookie, writeCookie } from './cookies.js';
export { DocsController } from './docs.controller.js';
export * from './http.errors.js';
export { HttpModule } from './http.module.js';
export {
  invalidCursor,
  keysetPage,
  type Page,
  type Position,
  pageOf,
  readCursor,
  writeCursor,
} from './pages.js';
export { checkIdempotencyKey, parseWith } from './parse.js';
export { RatesService, tooMany } from './rates.service.js';
export { createAdapter, ENDPOINT_METADATA, type LatchkeyRequest } from './server.js';
export { atMultiplesOf } from './steady.js';
