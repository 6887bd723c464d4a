export {
  CALLABLE_BY,
  CallableBy,
  type CallerNow,
  callerName,
  callerOf,
  callOf,
  type RpcCaller,
  type RpcCallerType,
  refuse,
  setCall,
} from './caller.js';
export { RpcContextInterceptor } from './context.interceptor.js';
export { batchLimit, InternalRpc } from './internal-rpc.js';
export { RpcErrorFilter } from './rpc.filter.js';
export { RpcModule } from './rpc.module.js';
