/** Every bound of a verifier. Beyond a bound it rejects or evicts; it never accepts a token because of one. */
export interface VerifierLimits {
  /** Tokens remembered. Default 100 000; about 400 bytes each at one million. */
  readonly entriesMax: number;
  /** Unknown secrets remembered. Default 10 000. */
  readonly missesMax: number;
  /** How long an unknown secret is remembered. Default 1 000. */
  readonly missLifeMs: number;
  /** Lookups in flight. Default 1 000. */
  readonly fillsMax: number;
  /** Of `fillsMax`, how many are reserved for tokens known to exist. Default 500. */
  readonly fillsReservedForKnown: number;
  /** Lookups in flight of unfamiliar secrets from one address. Default 50. */
  readonly fillsPerAddressMax: number;
  /** Lookups of one check when invalidations poison them. Default 4. */
  readonly lookupsPerCheckMax: number;
  /** Open streams watched. Default 20 000. */
  readonly streamsMax: number;
  /** How long a stream stays open while it is checked again after an invalidation. Default 250. */
  readonly recheckMs: number;
  /** Delay from a failed renewal to the next. Default 250. */
  readonly renewRetryMs: number;
  /** Delay to the next renewal after the authority has refused a lease for now. Default 5 000. */
  readonly refusedRetryMs: number;
  /**
   * Signatures of the feed checked per second, in bursts of at most 64; messages beyond are dropped unread, and a renewal
   * brings their invalidations. Default 500: a tenth of a core.
   */
  readonly signaturesPerSecondMax: number;
}

export const DEFAULT_LIMITS: VerifierLimits = {
  entriesMax: 100_000,
  missesMax: 10_000,
  missLifeMs: 1_000,
  fillsMax: 1_000,
  fillsReservedForKnown: 500,
  fillsPerAddressMax: 50,
  lookupsPerCheckMax: 4,
  streamsMax: 20_000,
  recheckMs: 250,
  renewRetryMs: 250,
  refusedRetryMs: 5_000,
  signaturesPerSecondMax: 500,
};
