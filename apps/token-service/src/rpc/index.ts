export { callerName, callerOf, FirstPartyOnly, type RpcCaller, RpcCallerGuard, refuse } from './caller.guard.js';
export { RpcErrorFilter } from './rpc.filter.js';
