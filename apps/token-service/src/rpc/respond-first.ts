import type { handleUnaryCall, Server, ServerUnaryCall } from '@grpc/grpc-js';

/**
 * Lets `respond` respond to the calls of one unary method ahead of its handler, which gets those for which it returns
 * undefined. To be called before the method's service is added to the server.
 */
export function respondFirst<Request, Response>(
  server: Pick<Server, 'register'>,
  path: string,
  respond: (call: ServerUnaryCall<Request, Response>) => Response | undefined,
): void {
  const register = server.register.bind(server) as Server['register'];
  server.register = (name, handler, ...others) => {
    if (name !== path) return register(name, handler, ...others);
    const further = handler as unknown as handleUnaryCall<Request, Response>;
    const first: handleUnaryCall<Request, Response> = (call, done) => {
      const response = respond(call);
      if (response === undefined) further(call, done);
      else done(null, response);
    };
    return register(name, first as unknown as typeof handler, ...others);
  };
}
