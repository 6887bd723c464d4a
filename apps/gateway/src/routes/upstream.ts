import type { UpstreamTls } from './tls.js';

/** A request that tells whether an upstream is healthy: any status below 400 says so. */
export interface HealthCheckSettings {
  readonly path: string;
  readonly intervalMs: number;
  readonly timeoutMs: number;
}

/** What the connections to an upstream depend on, apart from its address. */
export interface ConnectionSettings {
  /** Longest time that an idle connection is kept; undefined: the default of the pool. */
  readonly keepAliveMs?: number | undefined;
  /** Undefined: as for any https address. */
  readonly tls?: UpstreamTls | undefined;
  /** It is one of several, or can become one: whether it responds is watched. */
  readonly isWatched?: boolean;
  readonly healthCheck?: HealthCheckSettings | undefined;
}

/** One upstream of a route. */
export interface UpstreamSettings extends ConnectionSettings {
  /** Equal for equal settings: routes that have them share connections. */
  readonly key: string;
  readonly origin: string;
}

export function upstreamSettings(origin: string, settings: ConnectionSettings = {}): UpstreamSettings {
  const { keepAliveMs, tls, isWatched = false, healthCheck } = settings;
  const key = JSON.stringify([origin, keepAliveMs, tls?.digest, isWatched, healthCheck]);
  return { ...settings, key, origin };
}
