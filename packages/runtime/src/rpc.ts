import { readFileSync } from 'node:fs';
import {
  type Client,
  type ClientDuplexStream,
  credentials,
  Metadata,
  makeGenericClientConstructor,
  type ServiceDefinition,
  type ServiceError,
  status,
} from '@grpc/grpc-js';
import { loadSync, type Options } from '@grpc/proto-loader';
import {
  FIRST_PARTY_SCHEME,
  INTERNAL_PROTO_FILE,
  INTERNAL_PROTO_PACKAGE,
  type MaintenanceMethods,
  PROTO_FILE,
  PROTO_PACKAGE,
  type TokensMethods,
} from '@latchkey/contracts';
import { targetOf } from './rpc-addresses.js';

/** Encoding of messages on both sides: camelCase, numbers, absent fields as their defaults. */
export const PROTO_OPTIONS: Options = {
  keepCase: false,
  longs: Number,
  enums: String,
  defaults: true,
  arrays: true,
  oneofs: false,
};

export type Caller<M> = {
  [K in keyof M]: M[K] extends { request: infer Q; response: infer A }
    ? (request: Q, options?: { timeoutMs?: number }) => Promise<A>
    : M[K] extends { sent: infer Q; received: infer A }
      ? () => ClientDuplexStream<Q, A>
      : never;
} & { close(): void };

export interface RpcCallerOptions {
  /** `host:port` of the token-services, separated by commas; calls are spread over all that a name stands for. */
  address: string;
  /** Sent as `authorization`: see `firstParty` and `bearer`. A function is asked for each call. */
  authorization: string | (() => string);
  /** Called when the server has accepted or refused the authorization of a unary call. */
  onAuthorization?: (isAccepted: boolean) => void;
  /** PEM file of the CA that signed the server's certificate; plain text without one. */
  caFile?: string;
  /** Timeout of a call. Default 2 000. */
  timeoutMs?: number;
}

/** The `authorization` of one of Latchkey's own services. */
export const firstParty = (secret: string): string => `${FIRST_PARTY_SCHEME} ${secret}`;
export const bearer = (secret: string): string => `Bearer ${secret}`;

const UNAVAILABLE_CODES = [status.UNAVAILABLE, status.DEADLINE_EXCEEDED, status.RESOURCE_EXHAUSTED, status.CANCELLED];

/** Whether a gRPC failure is not about the request: the token-service is unavailable or too slow. */
export function isUnavailable(error: unknown): boolean {
  return UNAVAILABLE_CODES.includes((error as ServiceError)?.code);
}

/**
 * Why a renewal failed: `identity`, this verifier must make a new claim; `later`, its caller gets no lease for now;
 * undefined, the token-service is unavailable.
 */
export function renewalError(error: unknown): 'identity' | 'later' | undefined {
  switch ((error as ServiceError)?.code) {
    case status.FAILED_PRECONDITION:
    case status.PERMISSION_DENIED:
      return 'identity';
    case status.RESOURCE_EXHAUSTED:
      return 'later';
    default:
      return undefined;
  }
}

/** The reason when a call fails until a setting is changed; undefined for every other failure. */
export function unmetPrecondition(error: unknown): string | undefined {
  const { code, details } = (error ?? {}) as Partial<ServiceError>;
  return code === status.FAILED_PRECONDITION ? details : undefined;
}

/**
 * Calls go to all addresses in turn. A look-up changes nothing, so it is sent again, to the next one, when a server has died
 * with it; while most of them fail it is not.
 */
const SERVICE_CONFIG = {
  loadBalancingConfig: [{ round_robin: {} }],
  methodConfig: [
    {
      name: [{ service: `${PROTO_PACKAGE}.Tokens`, method: 'Lookup' }],
      retryPolicy: {
        maxAttempts: 2,
        initialBackoff: '0.01s',
        maxBackoff: '0.1s',
        backoffMultiplier: 2,
        retryableStatusCodes: ['UNAVAILABLE'],
      },
    },
  ],
  retryThrottling: { maxTokens: 1_000, tokenRatio: 1 },
};

type UnaryMethod = (
  request: unknown,
  metadata: Metadata,
  options: { deadline: number },
  callback: (error: ServiceError | null, response: unknown) => void,
) => void;
type StreamMethod = (metadata: Metadata) => ClientDuplexStream<unknown, unknown>;

function caller<M>(protoFile: string, service: string, options: RpcCallerOptions): Caller<M> {
  const definition = loadSync(protoFile, PROTO_OPTIONS)[service] as ServiceDefinition;
  const channel = options.caFile ? credentials.createSsl(readFileSync(options.caFile)) : credentials.createInsecure();
  const Service = makeGenericClientConstructor(definition, service);
  const client = new Service(targetOf(options.address), channel, {
    'grpc.service_config': JSON.stringify(SERVICE_CONFIG),
    // Else each resolution of a name asks for a TXT record too.
    'grpc.service_config_disable_resolution': 1,
    'grpc.dns_min_time_between_resolutions_ms': 2_000,
    // A server that does not respond, or whose address is gone, gets no calls after this time.
    'grpc.keepalive_time_ms': 5_000,
    'grpc.keepalive_timeout_ms': 2_000,
    'grpc.keepalive_permit_without_calls': 1,
    'grpc.initial_reconnect_backoff_ms': 100,
    'grpc.max_reconnect_backoff_ms': 1_000,
    'grpc.max_receive_message_length': 16 * 1024 * 1024,
  }) as Client & Record<string, UnaryMethod | StreamMethod>;
  const { authorization, onAuthorization } = options;
  const metadata = () => {
    const made = new Metadata();
    made.set('authorization', typeof authorization === 'string' ? authorization : authorization());
    return made;
  };
  const methods: Record<string, unknown> = { close: () => client.close() };
  for (const [name, { requestStream }] of Object.entries(definition)) {
    const method = name.charAt(0).toLowerCase() + name.slice(1);
    if (requestStream) {
      methods[method] = () => (client[name] as StreamMethod).call(client, metadata());
      continue;
    }
    methods[method] = (request: unknown, call: { timeoutMs?: number } = {}) =>
      new Promise((resolve, reject) => {
        const deadline = Date.now() + (call.timeoutMs ?? options.timeoutMs ?? 2_000);
        (client[name] as UnaryMethod).call(client, request, metadata(), { deadline }, (error, response) => {
          if (!error || error.code === status.UNAUTHENTICATED) onAuthorization?.(!error);
          if (error) reject(error);
          else resolve(response);
        });
      });
  }
  return methods as Caller<M>;
}

/** Calls `latchkey.v1.Tokens`. Failures reject with grpc-js's `ServiceError`. */
export const tokensCaller = (options: RpcCallerOptions): Caller<TokensMethods> =>
  caller(PROTO_FILE, `${PROTO_PACKAGE}.Tokens`, options);
/** Calls `latchkey.internal.v1.Maintenance`. */
export const maintenanceCaller = (options: RpcCallerOptions): Caller<MaintenanceMethods> =>
  caller(INTERNAL_PROTO_FILE, `${INTERNAL_PROTO_PACKAGE}.Maintenance`, options);
