import type { SystemState } from '@latchkey/contracts';
import { Inject, Injectable } from '@nestjs/common';
import { CONFIG, type TokenServiceConfig, VERSION } from '../config.js';
import { Database } from '../database/index.js';
import { LedgerService } from '../ledger/index.js';
import { PeppersService } from '../verification/index.js';
import { RestoreService } from './restore.service.js';

/** Most unfinished revocations listed. */
const UNSETTLED_MAX = 100;

interface SystemRow {
  database: string;
  log: string;
  invalidations: number;
  oldest_at: Date | null;
  /** Verifiers with a lease, by version. */
  verifiers: { version: string; verifiers: number }[];
  /**
   * Those that use, or may use, the protocol of version 0.1: leases without a claim, and unowned ones, which stand for
   * verifiers from before a restore.
   */
  old_verifiers: number;
  unsettled: { kind: string; id: string; since: string }[];
}

const SELECT_SYSTEM = `WITH current_leases AS (
    SELECT version, caller, claim IS NULL AND (caller <> 'nobody' OR $1) AS old FROM leases WHERE released_at IS NULL
  ), by_version AS (
    SELECT version, count(*)::int AS verifiers FROM current_leases WHERE caller <> 'nobody' GROUP BY version
  ), unsettled AS (
    SELECT 'revocation' AS kind, id::text, created_at AS since FROM exposures WHERE confirmed_at IS NULL
    UNION ALL
    SELECT 'revocation_of_all', generation::text, at FROM revocations_of_all WHERE marked_at IS NULL
    ORDER BY since LIMIT ${UNSETTLED_MAX}
  )
  SELECT current_setting('server_version') AS database, l.log,
    (SELECT count(*)::int FROM invalidations) AS invalidations,
    (SELECT min(created_at) FROM invalidations) AS oldest_at,
    (SELECT count(*)::int FROM current_leases WHERE old) AS old_verifiers,
    (SELECT coalesce(json_agg(v ORDER BY v.version), '[]') FROM by_version v) AS verifiers,
    (SELECT coalesce(json_agg(u ORDER BY u.since), '[]') FROM unsettled u) AS unsettled
  FROM invalidation_log l`;

/** The guarantee of revocation now in force, running versions and unfinished work, for administrators. */
@Injectable()
export class SystemService {
  constructor(
    private readonly db: Database,
    private readonly peppers: PeppersService,
    private readonly ledger: LedgerService,
    private readonly restores: RestoreService,
    @Inject(CONFIG) private readonly config: TokenServiceConfig,
  ) {}

  async state(): Promise<SystemState> {
    const [[row], restore, peppers] = await Promise.all([
      this.db.prepared<SystemRow>('system', SELECT_SYSTEM, [this.config.PROTOCOL_MIN < 3]),
      this.restores.latest(),
      this.peppers.state(),
    ]);
    const { database, log, invalidations, oldest_at, verifiers, old_verifiers, unsettled } = row!;
    return {
      versions: { tokenService: VERSION, database, verifiers },
      guarantee: old_verifiers > 0 ? 2 : 3,
      protocolMin: this.config.PROTOCOL_MIN,
      log: { id: log, invalidations, oldestAt: oldest_at?.toISOString() ?? null },
      ledger: this.ledger.state,
      restore,
      peppers: peppers.map(({ firstUsedAt, dependents, ...pepper }) => ({
        ...pepper,
        firstUsedAt: firstUsedAt?.toISOString() ?? null,
        tokens: dependents?.tokens ?? null,
        secondFactors: dependents?.secondFactors ?? null,
        recoveryCodes: dependents?.recoveryCodes ?? null,
      })),
      unsettled: unsettled.map(({ kind, id, since }) => ({ kind, id, since: new Date(since).toISOString() })),
    };
  }
}
