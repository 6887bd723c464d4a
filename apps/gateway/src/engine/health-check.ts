import type { ResponseHead } from '../http/index.js';
import type { HealthCheckSettings } from '../routes/index.js';
import type { Origin, ResponseSink, UpstreamConnection, UpstreamFailure } from './upstream-connection.js';
import type { UpstreamHealth } from './upstream-health.js';

/** The first check follows within this time, so that those of many upstreams do not come at once. */
const FIRST_MS = 1_000;
const POLICY = { trustedOrigin: false, maySetSession: false, ownCors: false };

/** The upstream, as its pool connects to it. */
interface Upstream {
  readonly origin: Origin;
  send(sink: ResponseSink, bytes: string, complete: boolean, fresh: boolean): UpstreamConnection;
}

/** Asks an upstream again and again whether it is healthy, each time over a new connection. */
export class HealthCheck implements ResponseSink {
  readonly method = 'GET';
  readonly policy = POLICY;
  readonly #request: string;
  /** Of the check that is under way. */
  #connection: UpstreamConnection | undefined;
  #startedMs = 0;
  #nextMs: number;

  constructor(
    private readonly upstream: Upstream,
    private readonly health: UpstreamHealth,
    private readonly settings: HealthCheckSettings,
  ) {
    this.#nextMs = performance.now() + Math.random() * Math.min(settings.intervalMs, FIRST_MS);
    this.#request = `GET ${settings.path} HTTP/1.1\r\nhost: ${upstream.origin.authority}\r\nuser-agent: latchkey-gateway\r\nconnection: close\r\n\r\n`;
  }

  tick(nowMs: number): void {
    const { intervalMs, timeoutMs } = this.settings;
    if (this.#connection) {
      if (nowMs - this.#startedMs > timeoutMs) this.#conclude(`timeout: no response within ${timeoutMs} ms`);
    } else if (nowMs >= this.#nextMs) {
      this.#startedMs = nowMs;
      this.#nextMs = nowMs + intervalMs * (0.9 + 0.2 * Math.random());
      this.#connection = this.upstream.send(this, this.#request, true, true);
    }
  }

  /** Ends the check that is under way. */
  stop(): void {
    this.#connection?.destroy();
    this.#connection = undefined;
  }

  /** @param failure undefined: it is healthy */
  #conclude(failure: string | undefined): void {
    if (!this.#connection) return;
    // What it says beyond its status is of no interest.
    this.#connection.destroy();
    this.#connection = undefined;
    this.health.checked(failure);
  }

  onResponse({ status }: ResponseHead): void {
    this.#conclude(status < 400 ? undefined : `status ${status}`);
  }

  onFailure({ reason }: UpstreamFailure): void {
    this.#conclude(reason);
  }

  onUpgrade(): void {
    this.#conclude('the upstream switched to a protocol unasked');
  }

  readonly wantsContent = () => false;
  readonly onInterim = () => undefined;
  readonly onData = () => undefined;
  readonly onEnd = () => undefined;
  readonly onDrain = () => undefined;
}
