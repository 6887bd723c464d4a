import { CALLER_ADDRESS_HEADER, type DenialReason, GATEWAY_PROOF_HEADER, gatewayProof } from '@latchkey/contracts';
import { type Logger, readAuthorization } from '@latchkey/runtime';
import type { Verifier } from '@latchkey/verifier';
import type { CallerRequest, UpstreamPool } from '../engine/index.js';
import { forwardedLines, type RequestHead, type Target } from '../http/index.js';
import { Exchange, type ExchangeDeps } from './exchange.js';

export interface ManagementDeps extends Omit<ExchangeDeps, 'upstreamFailed'> {
  /** The token-service's HTTP API. */
  readonly upstream: UpstreamPool;
  /** Proves to the token-service that a request came through a gateway. */
  readonly proofSecret: () => string;
  readonly verifier: Pick<Verifier, 'watch'>;
  readonly logger: Logger;
}

/** Longer than the token-service waits for a revocation to be confirmed. */
const TIMEOUT_MS = 120_000;
const POLICY = { trustedOrigin: true, maySetSession: true, ownCors: false };
const UNAVAILABLE = 'The management API is unavailable. Try again shortly; checks of tokens continue meanwhile.';

/** Forwards the management API unchanged, with proof that it came through a gateway; the token-service authorizes it. */
export class Management {
  #proof = { of: '', text: '' };
  readonly #exchanges: ExchangeDeps;

  constructor(private readonly deps: ManagementDeps) {
    this.#exchanges = {
      ...deps,
      upstreamFailed: (requestId, { kind, reason }) =>
        deps.logger.warn({ requestId, kind, reason }, 'token-service failed'),
    };
  }

  handle(request: CallerRequest, target: Target): void {
    const { head } = request;
    const lines = forwardedLines(head, { authorization: true, session: true }, '');
    const plan = {
      upstream: this.deps.upstream,
      path: target.path + target.query,
      lines: `${lines}${GATEWAY_PROOF_HEADER}: ${this.#proofNow()}\r\n${CALLER_ADDRESS_HEADER}: ${head.ip}\r\n`,
      body: undefined,
      timeoutMs: TIMEOUT_MS,
      policy: POLICY,
      extra: '',
      watch: this.#watchOf(head),
      watchResponseOnly: true,
      unavailableDetail: UNAVAILABLE,
    };
    new Exchange(request, plan, this.#exchanges).start();
  }

  #proofNow(): string {
    const secret = this.deps.proofSecret();
    if (secret !== this.#proof.of) this.#proof = { of: secret, text: gatewayProof(secret) };
    return this.#proof.text;
  }

  /** The token-service authorizes the request; a long response still ends with its token. */
  #watchOf({ authorization, ip }: RequestHead) {
    const secret = readAuthorization('bearer', authorization);
    if (typeof secret !== 'string') return undefined;
    return (cut: (reason: DenialReason) => void) => this.deps.verifier.watch(secret, { scopes: [], ip }, { cut });
  }
}
