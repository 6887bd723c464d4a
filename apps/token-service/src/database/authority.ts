import type { Clock } from '@latchkey/runtime';
import { Timekeeper } from '@latchkey/verifier';
import { HISTORY_ID, IS_CURRENT, LOG_FILE } from './history.js';
import type { PreparedClient, Proof } from './prepared-client.js';

/**
 * PostgreSQL could not prove that it is still the primary, or a commit ended with a warning (a cancelled wait for the standby
 * returns success with one). Nothing that was read may allow access, and whether the change is durable is unknown.
 */
export class AuthorityLost extends Error {
  override name = 'AuthorityLost';
}

/** Values of synchronous_commit whose commits wait for the disk, and for the standby where there is one. */
const DURABLE = ['on', 'remote_apply'];
/** The message of pg's error when `query_timeout` has passed. */
const TIMED_OUT = 'Query read timeout';
/** Longest wait for a proof. */
const PROOF_TIMEOUT_MAX_MS = 5_000;

/**
 * Which connections may be read for allowing access. A deposed primary that still runs can be read, and a lookup is a read:
 * it would accept tokens that the new primary has revoked. But it can no longer commit with the standby's acknowledgement.
 * So what allows access is read only on a connection on which a commit of its own, begun less than the window ago, has
 * returned without a warning. Confirmations on the new primary wait until that window has passed.
 */
export class Authority {
  readonly #time: Timekeeper;
  readonly #leaseMs: number;
  readonly #proofTimeoutMs: number;
  /** Commits that proved a connection's server to be the primary, and how often that failed. */
  readonly counters = { proofs: 0, lost: 0 };
  /** The highest timeline seen of each database system. */
  readonly #timelines = new Map<string, string>();

  /** @param leaseMs this process's own `LEASE_MS`; the window is never longer */
  constructor(clock: Clock, leaseMs: number) {
    this.#time = new Timekeeper(clock);
    this.#leaseMs = leaseMs;
    this.#proofTimeoutMs = Math.min(leaseMs, PROOF_TIMEOUT_MAX_MS);
  }

  /** Whether the next read on this connection may allow access. To be called after the request has arrived. */
  holds({ proof }: PreparedClient): boolean {
    return proof !== undefined && !this.#isDeposed(proof) && this.#time.elapsedMs(proof.begun) < proof.windowMs;
  }

  /**
   * Commits a row of the connection's own. A read that is sent behind it is valid once this has resolved.
   * @throws AuthorityLost when the commit ended with a warning, on an older timeline than one seen before, or took longer
   *   than its window, five seconds at most: on a deposed primary it hangs
   */
  async prove(connection: PreparedClient): Promise<void> {
    delete connection.proof;
    const begun = this.#time.note();
    const { warnings } = connection;
    const row = await this.#commit(connection);
    const { system, timeline, leaseMs, history, file } = row;
    const highest = this.#timelines.get(system);
    if (highest === undefined || highest < timeline) this.#timelines.set(system, timeline);
    mustBeUnwarned(connection, warnings);
    if (this.#isDeposed(row))
      throw new AuthorityLost(`PostgreSQL is on timeline ${timeline}, but ${highest} was seen before`);
    this.counters.proofs++;
    connection.proof = { begun, system, timeline, history, file, windowMs: Math.min(this.#leaseMs, leaseMs) };
  }

  async #commit(connection: PreparedClient): Promise<Omit<Proof, 'begun' | 'windowMs'> & { leaseMs: number }> {
    const proving = { ...PROVE, values: [connection.id], query_timeout: this.#proofTimeoutMs };
    const { rows } = await connection.query(proving).catch((error: Error) => {
      if (error.message !== TIMED_OUT) throw error;
      throw new AuthorityLost('timeout: PostgreSQL did not finish a commit in time');
    });
    const { system, timeline, history, file, lease_ms: leaseMs, pid, synchronous_commit: durability } = rows[0]!;
    // A read behind the proof, or the next proof, might come from another server.
    if (pid !== connection.processID)
      throw new AuthorityLost('a pooler stands between this service and PostgreSQL: connect to PostgreSQL itself');
    if (!DURABLE.includes(durability))
      throw new AuthorityLost(
        `PostgreSQL commits with synchronous_commit = ${durability} here, though this service sets on`,
      );
    // A new primary waits as long as the log's row says, so the row is raised before the window is used.
    if (leaseMs < this.#leaseMs) await connection.query(RAISE, [this.#leaseMs]);
    return { system, timeline, history, file, leaseMs };
  }

  #isDeposed({ system, timeline }: { system: string; timeline: string }): boolean {
    const highest = this.#timelines.get(system);
    return highest !== undefined && timeline < highest;
  }
}

/** @throws AuthorityLost, and closes the connection, when PostgreSQL has warned since `warnings` was read */
export function mustBeUnwarned(connection: PreparedClient, warnings: number): void {
  if (connection.warnings === warnings) return;
  delete connection.proof;
  void connection.end();
  throw new AuthorityLost('PostgreSQL warned at a commit: it may not have reached the standby');
}

/**
 * In: the connection's id. Out: the database system, its timeline, its history (empty when that is not recorded yet), the
 * longest lease ever in force, the server process, and how durable its commits are. One row per connection, so that hanging commits do not block each other; a permanent table,
 * because only commits to one wait for a standby.
 */
const PROVE = {
  name: 'prove',
  text: `INSERT INTO authority_proofs (connection, proved_at) VALUES ($1, now())
  ON CONFLICT (connection) DO UPDATE SET proved_at = excluded.proved_at
  RETURNING (SELECT system_identifier::text FROM pg_control_system()) AS system,
    left(pg_walfile_name(pg_current_wal_insert_lsn()), 8) AS timeline,
    (SELECT longest_lease_ms FROM invalidation_log) AS lease_ms,
    (SELECT CASE WHEN ${IS_CURRENT} THEN ${HISTORY_ID} ELSE '' END FROM invalidation_log l) AS history,
    ${LOG_FILE} AS file,
    pg_backend_pid() AS pid, current_setting('synchronous_commit') AS synchronous_commit`,
};

const RAISE = 'UPDATE invalidation_log SET longest_lease_ms = $1 WHERE longest_lease_ms < $1';
