import { status as grpcStatus } from '@grpc/grpc-js';
import { isRequestId } from '@latchkey/contracts';
import { newId } from '@latchkey/runtime';
import { Controller } from '@nestjs/common';
import { GrpcMethod } from '@nestjs/microservices';
import { Delegated, type DelegatedResult, Peers, readRequirement } from '../handlers/index.js';
import { callerAddress, type ErrorResponse, normalHeaderName, plainAddress, renderError } from '../http/index.js';

interface HeaderValue {
  key: string;
  value: string;
  rawValue: Uint8Array;
}

export interface CheckRequest {
  attributes: {
    source: { address: { socketAddress: { address: string } | null } | null } | null;
    request: {
      http: {
        method: string;
        path: string;
        headers: Record<string, string>;
        headerMap: { headers: HeaderValue[] } | null;
      } | null;
    } | null;
    contextExtensions: Record<string, string>;
  } | null;
}

/** gRPC status by HTTP status; Envoy reads only whether it is OK. */
const STATUS: Readonly<Record<number, number>> = {
  400: grpcStatus.INVALID_ARGUMENT,
  401: grpcStatus.UNAUTHENTICATED,
  403: grpcStatus.PERMISSION_DENIED,
  429: grpcStatus.RESOURCE_EXHAUSTED,
  503: grpcStatus.UNAVAILABLE,
};

const overwrite = ([key, value]: [string, string]) => ({
  header: { key, value },
  appendAction: 'OVERWRITE_IF_EXISTS_OR_ADD',
  keepEmptyValue: true,
});

/**
 * `envoy.service.auth.v3.Authorization/Check`. The filter's `context_extensions` can set `scope` and `project`, like
 * the query of forward-auth.
 */
@Controller()
export class ExtAuthzController {
  constructor(
    private readonly delegated: Delegated,
    private readonly peers: Peers,
  ) {}

  @GrpcMethod('Authorization', 'Check')
  /** Synchronous where `Checks.decide` is. */
  check({ attributes }: CheckRequest): object | Promise<object> {
    const http = attributes?.request?.http;
    if (!http) return denied({ code: 'invalid_request', detail: 'Envoy sent no HTTP request.' }, newId());
    const headers = headersOf(http);
    const all = (name: string) => headers.filter(([key]) => key === name).map(([, value]) => value);
    const peer = plainAddress(attributes?.source?.address?.socketAddress?.address);
    const given = all('x-request-id')[0];
    const requestId = given !== undefined && isRequestId(given) ? given : newId();
    const authorizations = all('authorization');
    if (authorizations.length > 1)
      return denied({ code: 'invalid_request', detail: 'The header Authorization was sent twice.' }, requestId);

    const { scope, project } = attributes?.contextExtensions ?? {};
    const requirement = readRequirement(scope === undefined ? [] : [scope], project === undefined ? [] : [project]);
    if ('error' in requirement) return denied(requirement.error, requestId);
    const forwardedFor = all('x-forwarded-for').join(', ');
    const isTrusted = this.peers.isTrustedProxy;
    const result = this.delegated.check({
      endpoint: 'ext-authz',
      forwarded: { method: http.method, uri: http.path },
      ...requirement,
      authorization: authorizations[0],
      requestId,
      ip: forwardedFor !== '' && isTrusted(peer) ? callerAddress(forwardedFor, peer, isTrusted) : peer,
      userAgent: all('user-agent')[0] ?? '',
    });
    return result instanceof Promise
      ? result.then((late) => responseOf(late, requestId, headers))
      : responseOf(result, requestId, headers);
  }
}

function responseOf(result: DelegatedResult, requestId: string, headers: readonly Header[]): object {
  return 'error' in result ? denied(result.error, requestId) : allowed(result, headers);
}

/** Its name is in lower case. */
type Header = readonly [name: string, value: string];

function headersOf(http: { headers: Record<string, string>; headerMap: { headers: HeaderValue[] } | null }) {
  const raw = (http.headerMap?.headers ?? []).map(
    ({ key, value, rawValue }) =>
      [key.toLowerCase(), rawValue.length ? Buffer.from(rawValue).toString('latin1') : value] as const,
  );
  return [...Object.entries(http.headers).map(([key, value]) => [key.toLowerCase(), value] as const), ...raw];
}

function allowed(
  { identity, keepAuthorization }: Extract<DelegatedResult, { identity: object }>,
  headers: readonly Header[],
): object {
  // Other spellings of the identity headers are one name to many servers.
  const spoofed = headers
    .map(([name]) => name)
    .filter((name) => !(name in identity) && /^x-latchkey(-|$)|^x-request-id$/.test(normalHeaderName(name)));
  return {
    status: { code: grpcStatus.OK, message: '' },
    okResponse: {
      headers: Object.entries(identity).map(overwrite),
      headersToRemove: [...new Set([...spoofed, ...(keepAuthorization ? [] : ['authorization'])])],
      responseHeadersToAdd: [],
    },
  };
}

function denied(error: ErrorResponse, requestId: string): object {
  const { status, headers, body } = renderError(error, requestId);
  const { 'content-length': _framing, ...others } = headers;
  return {
    status: { code: STATUS[status] ?? grpcStatus.PERMISSION_DENIED, message: error.detail },
    deniedResponse: { status: { code: status }, headers: Object.entries(others).map(overwrite), body },
  };
}
