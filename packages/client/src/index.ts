/** The management client. This entry imports neither zod nor Node's modules, so that a browser's bundle stays small. */

export type * from '@latchkey/contracts';
export { type ClientOptions, createClient } from './client.js';
export { type Failure, type FailureCode, LatchkeyError } from './errors.js';
export type { Retries } from './transport.js';
export type {
  Answer,
  Body,
  CallName,
  Calls,
  Client,
  CommonOptions,
  Input,
  Item,
  Options,
  PagedCall,
} from './types.js';
