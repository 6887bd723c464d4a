import { ENDPOINTS, type Endpoint, type EndpointName } from '@latchkey/contracts';
import {
  applyDecorators,
  createParamDecorator,
  type ExecutionContext,
  RequestMapping,
  RequestMethod,
  SetMetadata,
} from '@nestjs/common';
import type { z } from 'zod';
import type { Actor, UserActor } from '../authorization/index.js';
import { ApiError, forbidden } from './http.errors.js';
import { parseWith, preferredWaitMs } from './parse.js';
import { ENDPOINT_METADATA, type LatchkeyRequest } from './server.js';

/** A response other than 200 with the returned value. */
export class HttpResponse {
  constructor(
    readonly status: number,
    readonly body: unknown = undefined,
    readonly headers: Record<string, string | string[]> = {},
  ) {}
}

/** Makes a controller's method the handler of this call of the management API: path, method and scope come from ENDPOINTS. */
export function Call(name: EndpointName): MethodDecorator {
  const endpoint: Endpoint = ENDPOINTS[name];
  return applyDecorators(
    RequestMapping({ path: endpoint.path.replace(/\{(\w+)\}/g, ':$1'), method: RequestMethod[endpoint.method] }),
    SetMetadata(ENDPOINT_METADATA, name),
  );
}

type PartOf<N extends EndpointName, K extends string> =
  (typeof ENDPOINTS)[N] extends Record<K, infer S extends z.ZodType> ? z.output<S> : undefined;
/** The validated input of a call. */
export interface InputOf<N extends EndpointName> {
  params: PartOf<N, 'params'>;
  query: PartOf<N, 'query'>;
  body: PartOf<N, 'body'>;
}

/** The input of the handler's `@Call`: path parameters, query and body, parsed by its schemas; unknown fields are refused by name. */
export const Input = createParamDecorator((_: undefined, context: ExecutionContext) => {
  const request = context.switchToHttp().getRequest<LatchkeyRequest>();
  const name = Reflect.getMetadata(ENDPOINT_METADATA, context.getHandler()) as EndpointName;
  const endpoint: Endpoint = ENDPOINTS[name];
  return {
    params: endpoint.params && parseWith(endpoint.params, request.params, 'path'),
    query: parseQuery(endpoint, request.query),
    body: parseBody(endpoint, request),
  };
});

function parseQuery(endpoint: Endpoint, query: unknown): unknown {
  if (endpoint.query) return parseWith(endpoint.query, query, 'query');
  const [unknownName] = Object.keys((query ?? {}) as object);
  if (unknownName === undefined) return undefined;
  const errors = [{ field: unknownName.slice(0, 100), message: 'is not a parameter of this request' }];
  throw new ApiError('invalid_request', 'This call takes no query parameters.', { errors });
}

/** Without its parameters, in lower case (RFC 9110 section 8.3.1). */
export const mediaTypeOf = (contentType = ''): string => contentType.split(';', 1)[0]!.trim().toLowerCase();

function parseBody(endpoint: Endpoint, request: LatchkeyRequest): unknown {
  const type = mediaTypeOf(request.headers['content-type']);
  const isEmpty = request.body === undefined || request.body === null;
  if (!endpoint.body) {
    if (isEmpty || (typeof request.body === 'object' && Object.keys(request.body as object).length === 0))
      return undefined;
    throw new ApiError('invalid_request', 'This call takes no body.', {
      errors: [{ field: 'body', message: 'must be absent' }],
    });
  }
  if (isEmpty && endpoint.bodyOptional) return parseWith(endpoint.body, {}, 'body');
  const wanted = endpoint.bodyType === 'form' ? 'application/x-www-form-urlencoded' : 'application/json';
  if (isEmpty && type === '')
    throw new ApiError('invalid_request', `Send a body of ${wanted}.`, {
      errors: [{ field: 'body', message: 'is required' }],
    });
  if (type !== wanted) throw new ApiError('unsupported_media_type', `Send \`Content-Type: ${wanted}\`.`);
  return parseWith(endpoint.body, request.body, 'body');
}

/** The caller. @throws ApiError `unauthenticated` when the guard has set none */
export const Caller = createParamDecorator((_: unknown, context: ExecutionContext): Actor => callerOf(context));

function callerOf(context: ExecutionContext): Actor {
  const { actor } = context.switchToHttp().getRequest<LatchkeyRequest>().latchkey;
  if (!actor)
    throw new ApiError('unauthenticated', 'Sign in, or send a token as `Authorization: Bearer`.', { bearer: true });
  return actor;
}

/** The caller, a signed-in person. @throws ApiError `forbidden` for a token, whatever it holds */
export const Person = createParamDecorator((_: unknown, context: ExecutionContext): UserActor => {
  const actor = callerOf(context);
  if (actor.type === 'user') return actor;
  throw forbidden('Only a person who is signed in may do this; a token cannot, whatever scopes it has.');
});

/** How long the caller wants to wait for a change to be effective, in milliseconds; undefined: as long as it takes. */
export const Prefer = createParamDecorator((_: unknown, context: ExecutionContext): number | undefined =>
  preferredWaitMs(context.switchToHttp().getRequest<LatchkeyRequest>().headers['prefer']),
);
