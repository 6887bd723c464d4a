/** How long something took: with a tenth where that tells something. */
export const milliseconds = (ms: number): string => (ms < 10 ? `${ms.toFixed(1)} ms` : `${Math.round(ms)} ms`);

/** How long something takes at the most. */
export const seconds = (ms: number): string => `${Math.ceil(ms / 1_000)} s`;
