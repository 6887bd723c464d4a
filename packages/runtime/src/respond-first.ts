import type { handleUnaryCall, Server, ServerUnaryCall } from '@grpc/grpc-js';

/**
 * Lets `respond` respond to the calls of one unary method ahead of its handler, which gets those for which it returns
 * undefined, throws or rejects. To be called before the method's service is added to the server.
 */
export function respondFirst<Request, Response>(
  server: Pick<Server, 'register'>,
  path: string,
  respond: (call: ServerUnaryCall<Request, Response>) => Response | Promise<Response> | undefined,
): void {
  const register = server.register.bind(server) as Server['register'];
  server.register = (name, handler, ...others) => {
    if (name !== path) return register(name, handler, ...others);
    const further = handler as unknown as handleUnaryCall<Request, Response>;
    const first: handleUnaryCall<Request, Response> = (call, done) => {
      let response: Response | Promise<Response> | undefined;
      try {
        response = respond(call);
      } catch {
        // The handler fails too, and its errors are logged.
      }
      if (response === undefined) further(call, done);
      else if (response instanceof Promise)
        response.then(
          (late) => done(null, late),
          () => further(call, done),
        );
      else done(null, response);
    };
    return register(name, first as unknown as typeof handler, ...others);
  };
}
