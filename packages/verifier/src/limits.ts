/** Every bound of a verifier. What is beyond one is refused or forgotten, never accepted. */
export interface VerifierLimits {
  /** Tokens remembered. Default 100 000; about 400 bytes each at one million. */
  readonly entriesMax: number;
  /** Unknown secrets remembered. Default 10 000. */
  readonly missesMax: number;
  /** How long an unknown secret is remembered. Default 1 000. */
  readonly missLifeMs: number;
  /** Questions to the authority in flight. Default 1 000. */
  readonly fillsMax: number;
  /** Of `fillsMax`, how many are kept free for tokens known to be real. Default 500. */
  readonly fillsReservedForKnown: number;
  /** Questions in flight about unfamiliar secrets from one address. Default 50. */
  readonly fillsPerAddressMax: number;
  /** How often one check asks when invalidations overtake its questions. Default 4. */
  readonly questionsPerCheckMax: number;
  /** Open streams watched. Default 20 000. */
  readonly streamsMax: number;
  /** How long a stream may stay open while it is checked again after an invalidation. Default 250. */
  readonly recheckMs: number;
  /** How long after a failed renewal the next one follows. Default 250. */
  readonly renewRetryMs: number;
  /** How long after the authority has refused a lease for now the next renewal follows. Default 5 000. */
  readonly refusedRetryMs: number;
  /**
   * Signatures of the feed checked in a second, at most 64 in one go; what comes beyond is dropped unread, and a renewal
   * brings what was genuine of it. Default 500: a tenth of a core.
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
  questionsPerCheckMax: 4,
  streamsMax: 20_000,
  recheckMs: 250,
  renewRetryMs: 250,
  refusedRetryMs: 5_000,
  signaturesPerSecondMax: 500,
};
