import type { UpstreamTls } from './tls.js';

/** What the connections to an upstream depend on, apart from its address. */
export interface ConnectionSettings {
  /** Longest time that an idle connection is kept; undefined: the default of the pool. */
  readonly keepAliveMs?: number | undefined;
  /** Undefined: as for any https address. */
  readonly tls?: UpstreamTls | undefined;
  /** It is one of several, or can become one: whether it responds is watched. */
  readonly isWatched?: boolean;
}

/** One upstream of a route. */
export interface UpstreamSettings extends ConnectionSettings {
  /** Equal for equal settings: routes that have them share connections. */
  readonly key: string;
  readonly origin: string;
}

export function upstreamSettings(origin: string, settings: ConnectionSettings = {}): UpstreamSettings {
  const { keepAliveMs, tls, isWatched = false } = settings;
  return { key: JSON.stringify([origin, keepAliveMs, tls?.digest, isWatched]), origin, keepAliveMs, tls, isWatched };
}
