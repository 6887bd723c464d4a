/** One upstream of a route, with the settings that its connections depend on. */
export interface UpstreamSettings {
  /** Equal for equal settings: routes that have them share connections. */
  readonly key: string;
  readonly origin: string;
  /** How long an idle connection is kept; undefined: the default of the pool. */
  readonly keepAliveMs: number | undefined;
}

export function upstreamSettings(origin: string, keepAliveMs?: number): UpstreamSettings {
  return { key: JSON.stringify([origin, keepAliveMs]), origin, keepAliveMs };
}
