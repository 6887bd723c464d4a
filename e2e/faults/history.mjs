/**
 * What was asked, when, and what came of it; and its evaluation. All times are of one clock, the observer's, so that
 * "later" needs no agreement of clocks.
 *
 * @typedef {object} Check one request that presented a token
 * @property {string} token
 * @property {string} gateway
 * @property {number} startMs before the request was sent
 * @property {number} endMs when the head of its response had come
 * @property {'accepted' | 'denied' | 'unavailable' | 'unreachable'} verdict
 *
 * @typedef {object} Revocation
 * @property {string} token
 * @property {number} startMs before it was first asked for
 * @property {number} endMs when `effective: true` had come
 */

/**
 * @param {readonly Check[]} checks
 * @param {readonly Revocation[]} revocations
 * @returns what breaks the guarantee: `stale`, checks accepted that began after the revocation had returned; `wronged`,
 * denied checks of a token that no one had asked to revoke, where an outage must be `unavailable`
 */
export function evaluate(checks, revocations) {
  const byToken = new Map(revocations.map((revocation) => [revocation.token, revocation]));
  const stale = checks.filter(({ token, startMs, verdict }) => {
    const revocation = byToken.get(token);
    return verdict === 'accepted' && revocation !== undefined && startMs > revocation.endMs;
  });
  const wronged = checks.filter(({ token, endMs, verdict }) => {
    const revocation = byToken.get(token);
    return verdict === 'denied' && (revocation === undefined || endMs < revocation.startMs);
  });
  return { stale, wronged };
}

/** Histories whose evaluation is known. @throws Error naming the one that `evaluate` gets wrong */
export function checkEvaluate() {
  const check = {
    token: 't',
    gateway: 'g',
    startMs: 0,
    endMs: 0,
    verdict: /** @type {Check['verdict']} */ ('accepted'),
  };
  const revocation = { token: 't', startMs: 10, endMs: 20 };
  /** @type {[string, Check, Revocation[], number, number][]} */
  const known = [
    ['accepted after the return', { ...check, startMs: 20.1, endMs: 21 }, [revocation], 1, 0],
    ['accepted long after the return', { ...check, startMs: 9_000, endMs: 9_001 }, [revocation], 1, 0],
    ['begun before the return and accepted after it', { ...check, startMs: 19.9, endMs: 40 }, [revocation], 0, 0],
    ['accepted before', { ...check, startMs: 1, endMs: 2 }, [revocation], 0, 0],
    ['another token accepted after', { ...check, token: 'u', startMs: 30, endMs: 31 }, [revocation], 0, 0],
    ['unavailable after', { ...check, startMs: 30, endMs: 31, verdict: 'unavailable' }, [revocation], 0, 0],
    ['denied after', { ...check, startMs: 30, endMs: 31, verdict: 'denied' }, [revocation], 0, 0],
    ['denied while it was revoked', { ...check, startMs: 1, endMs: 12, verdict: 'denied' }, [revocation], 0, 0],
    ['denied before the request', { ...check, startMs: 1, endMs: 9, verdict: 'denied' }, [revocation], 0, 1],
    ['a good token denied', { ...check, startMs: 1, endMs: 2, verdict: 'denied' }, [], 0, 1],
    ['a good token unavailable', { ...check, startMs: 1, endMs: 2, verdict: 'unavailable' }, [], 0, 0],
  ];
  for (const [what, one, revocations, stale, wronged] of known) {
    const found = evaluate([one], revocations);
    if (found.stale.length !== stale || found.wronged.length !== wronged)
      throw new Error(`the evaluation is wrong: ${what}`);
  }
}
