export {
  CallableBy,
  type CallerNow,
  callerName,
  callerOf,
  callOf,
  type RpcCaller,
  RpcCallerGuard,
  type RpcCallerType,
  refuse,
} from './caller.guard.js';
export { RpcContextInterceptor } from './context.interceptor.js';
export { ErrorFilter } from './error.filter.js';
export { RpcErrorFilter } from './rpc.filter.js';
