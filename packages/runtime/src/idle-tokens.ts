/**
 * Two scans that find idle tokens by an index of their last use, or of their issue if they were never used. Each goes
 * from where the last scan ended to the policy's limit, so the cost depends on what becomes due.
 * In: `$1` from, `$2` to, `$3` at most. Out: tokens (`t`), longest idle first.
 */
export const IDLE_SCANS = {
  'idle since last use': `SELECT t.id, u.last_used_at AS since FROM token_usage u JOIN tokens t ON t.id = u.token_id
     WHERE u.last_used_at >= $1 AND u.last_used_at < $2 AND t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > now())
     ORDER BY u.last_used_at LIMIT $3`,
  'idle since issue': `SELECT t.id, t.created_at AS since FROM tokens t
     WHERE t.created_at >= $1 AND t.created_at < $2 AND t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > now())
       AND NOT EXISTS (SELECT FROM token_usage u WHERE u.token_id = t.id)
     ORDER BY t.created_at LIMIT $3`,
} as const;
/** Also the name of the scan's watermark. */
export type IdleScan = keyof typeof IDLE_SCANS;

export const IDLE_SCAN_NAMES = Object.keys(IDLE_SCANS) as IdleScan[];
