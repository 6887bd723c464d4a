import {
  DENIAL_REASONS,
  type DenialReason,
  type RpcRateBucket,
  type RpcRateLimit,
  type TokenSnapshot,
} from '@latchkey/contracts';

export const kindOf = (kind: string): 'pat' | 'prj' => (kind === 'prj' ? 'prj' : 'pat');
export const ownerTypeOf = (type: string): 'user' | 'project' => (type === 'project' ? 'project' : 'user');

/** An unknown denial, from a newer token-service, still denies. */
export function denialOf(denial: string): DenialReason | '' {
  return denial === '' || (DENIAL_REASONS as readonly string[]).includes(denial)
    ? (denial as DenialReason)
    : 'disabled';
}

const UNLIMITED: readonly RpcRateBucket[] = [];

/** The buckets that a use is counted in; an authority of version 0.1 sends only the strictest limit. */
export function ratesOf({ rates, rateLimit }: Pick<TokenSnapshot, 'rates' | 'rateLimit'>): readonly RpcRateBucket[] {
  if (rates && rates.length > 0) return rates;
  return rateLimit ? [{ bucket: '', ...rateLimit }] : UNLIMITED;
}

/** Of several limits the one with the lowest rate; null without any. */
export function strictestRate(rates: readonly RpcRateBucket[]): RpcRateLimit | null {
  if (rates.length === 0) return null;
  const { limit, windowSeconds } = rates.reduce((a, b) =>
    a.limit / a.windowSeconds <= b.limit / b.windowSeconds ? a : b,
  );
  return { limit, windowSeconds };
}
