import { readFileSync } from 'node:fs';
import { credentials, Metadata, type ServiceError } from '@grpc/grpc-js';
import { PROTO_FILE, PROTO_PACKAGE, type VerifyRequest, type VerifyResponse } from '@latchkey/contracts';
import { Inject, Injectable, Logger, type OnModuleDestroy } from '@nestjs/common';
import { type ClientGrpc, ClientGrpcProxy } from '@nestjs/microservices';
import { firstValueFrom, type Observable } from 'rxjs';

export interface LatchkeyOptions {
  /** `host:port` of the token-service's gRPC endpoint. */
  rpcAddress: string;
  /** This service's own token; it needs the scope `tokens:verify`. */
  token: string;
  /** PEM file of the authority that signed the endpoint's certificate; without one the connection is plain text. */
  caFile?: string;
  /** Timeout of a check. Default 2 000; past it the response is 503. */
  timeoutMs?: number;
  /** Named in `WWW-Authenticate`. Default `api`. */
  realm?: string;
}

export const LATCHKEY_OPTIONS = Symbol('latchkey options');

interface TokensService {
  verify(request: VerifyRequest, metadata: Metadata, call: { deadline: number }): Observable<VerifyResponse>;
}

/** Client of Latchkey's gRPC API. */
@Injectable()
export class Latchkey implements OnModuleDestroy {
  readonly #log = new Logger(Latchkey.name);
  readonly #rpc: ClientGrpc & { close(): void };
  readonly #metadata = new Metadata();

  constructor(@Inject(LATCHKEY_OPTIONS) private readonly options: LatchkeyOptions) {
    this.#metadata.set('authorization', `Bearer ${options.token}`);
    this.#rpc = new ClientGrpcProxy({
      url: options.rpcAddress,
      package: PROTO_PACKAGE,
      protoPath: PROTO_FILE,
      loader: { defaults: true, longs: Number, arrays: true },
      credentials: options.caFile ? credentials.createSsl(readFileSync(options.caFile)) : credentials.createInsecure(),
    });
  }

  /**
   * Asks whether a token may do this now. The response comes from the token-service itself, so a revoked token is
   * refused from the moment the revocation is committed; nothing is cached here.
   * @returns `undefined` when Latchkey is unavailable, too slow, or does not accept this service: nothing is known about
   * the token then, and the caller must get 503, not 401.
   */
  async verify(request: VerifyRequest): Promise<VerifyResponse | undefined> {
    const deadline = Date.now() + (this.options.timeoutMs ?? 2_000);
    try {
      return await firstValueFrom(
        this.#rpc.getService<TokensService>('Tokens').verify(request, this.#metadata, { deadline }),
      );
    } catch (error) {
      // The gRPC code and detail only: the request holds a secret, and the metadata another.
      const { code, details } = error as ServiceError;
      this.#log.error(
        `Latchkey did not respond (gRPC ${code}: ${details}); check LATCHKEY_RPC and that LATCHKEY_TOKEN has the scope tokens:verify`,
      );
      return undefined;
    }
  }

  onModuleDestroy(): void {
    this.#rpc.close();
  }
}
