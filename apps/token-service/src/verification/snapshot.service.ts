import type { LookupResponse, PersonRole, ProjectRole, RpcRateBucket, TokenSnapshot } from '@latchkey/contracts';
import { intersectAddresses, strictestRate } from '@latchkey/verifier';
import { Injectable } from '@nestjs/common';
import { ScopesService } from '../authorization/index.js';
import { AuthorityLost, Database, LOG_FILE, type Statement } from '../database/index.js';
import type { ApiError } from '../http/index.js';
import { lackingOf } from './peppers.queries.js';
import { PeppersService } from './peppers.service.js';
import { RehashService } from './rehash.service.js';
import { SecretHasher } from './secret-hasher.js';

/** One row for a token, with all that its effective rights depend on. */
export interface SnapshotRow {
  id: string;
  name: string;
  kind: 'pat' | 'prj';
  owner_user_id: string | null;
  project_id: string | null;
  scopes: string[];
  allowed_ips: string[];
  rate_limit: number | null;
  rate_window_seconds: number | null;
  rate_bucket: string;
  ends_at_ms: string | null;
  disabled: boolean;
  revoked: boolean;
  generation: number;
  /** Of the pepper of its hash; null: written before there were ids. */
  pepper_id: number | null;
  /** Tokens of a lower generation are revoked. */
  current_generation: number | null;
  ancestors: string[];
  owner_role: PersonRole | null;
  owner_disabled: boolean | null;
  project_closed: boolean | null;
  memberships: [project: string, role: ProjectRole][] | null;
  ancestor_bounds: AncestorBounds[] | null;
  /** SHA-256 of the scopes in force. */
  declared: Buffer;
  /** Issued before a restore that is not settled. */
  restored: boolean | null;
}

/** What an ancestor allows its descendants. */
interface AncestorBounds {
  scopes: string[];
  allowed_ips: string[];
  rate_limit: number | null;
  rate_window_seconds: number | null;
  rate_bucket: string;
  ends_at_ms: number | null;
  disabled: boolean;
  revoked: boolean;
}

// Every part is found by an index: the hash, the owner, the owner's memberships, and, for derived tokens, the ancestors.
export const SELECT_SNAPSHOT = `
SELECT t.id, t.name, t.kind, t.owner_user_id, t.project_id, t.scopes, t.allowed_ips, t.rate_limit, t.rate_window_seconds,
  coalesce(t.rate_bucket, t.id) AS rate_bucket, (extract(epoch FROM t.ends_at) * 1000)::bigint AS ends_at_ms,
  t.disabled_at IS NOT NULL AS disabled, t.revoked_at IS NOT NULL AS revoked, t.ancestors,
  t.generation, t.pepper_id, (SELECT current FROM token_generation) AS current_generation,
  u.role AS owner_role, u.disabled_at IS NOT NULL AS owner_disabled, p.closed_at IS NOT NULL AS project_closed,
  CASE WHEN t.owner_user_id IS NOT NULL THEN (
    SELECT json_agg(json_build_array(m.project_id, m.role)) FROM members m
    JOIN projects mp ON mp.id = m.project_id AND mp.closed_at IS NULL WHERE m.user_id = t.owner_user_id
  ) END AS memberships,
  CASE WHEN t.ancestors <> '{}' THEN (
    SELECT json_agg(json_build_object('scopes', a.scopes, 'allowed_ips', a.allowed_ips, 'rate_limit', a.rate_limit,
      'rate_window_seconds', a.rate_window_seconds, 'rate_bucket', coalesce(a.rate_bucket, a.id), 'ends_at_ms', (extract(epoch FROM a.ends_at) * 1000)::bigint,
      'disabled', a.disabled_at IS NOT NULL, 'revoked', a.revoked_at IS NOT NULL))
    FROM tokens a WHERE a.id = ANY (t.ancestors)
  ) END AS ancestor_bounds,
  (SELECT digest FROM scope_declarations) AS declared,
  (SELECT t.created_at < restored_before FROM invalidation_log) AS restored
FROM tokens t
LEFT JOIN users u ON u.id = t.owner_user_id
LEFT JOIN projects p ON p.id = t.project_id`;

/** Reads one by id; for transactions that have locked what it depends on. */
export const snapshotById = (id: string): Statement => [`${SELECT_SNAPSHOT} WHERE t.id = $1`, [id]];

/** A token as checks need it, and its name. */
export interface NamedSnapshot {
  snapshot: TokenSnapshot;
  name: string;
  /** Of the token; the current generation, unless it was revoked with everything. */
  generation: number;
}

/**
 * In: `$1` fingerprints of the caller's peppers, then a hash under each. Out: one row with the log, the token if it is
 * known, and else the peppers that the caller is `lacking`: of one moment, so that the log belongs to the result, and so
 * does why there may be none. A placeholder for each hash, not an array of unknown length, for which PostgreSQL would plan
 * anew at each look-up.
 */
export const snapshotByHash = (peppers: number): string => {
  const hashes = Array.from({ length: peppers }, (_, i) => `$${i + 2}`).join(', ');
  return `SELECT l.log, ${LOG_FILE} AS file, f.*, CASE WHEN f.id IS NULL THEN ${lackingOf('$1::bytea[]')} END AS lacking
FROM invalidation_log l LEFT JOIN (${SELECT_SNAPSHOT} WHERE t.hash IN (${hashes})) f ON true`;
};

const IDS_BY_HASH = `SELECT ARRAY(SELECT id FROM tokens WHERE hash = ANY ($1)) AS ids, ${lackingOf('$2::bytea[]')} AS lacking`;

/** Reads what a check needs of a token, always now, from a server proven to be the primary. */
@Injectable()
export class SnapshotService {
  readonly #byHash: string;

  constructor(
    private readonly db: Database,
    private readonly scopes: ScopesService,
    private readonly hasher: SecretHasher,
    private readonly peppers: PeppersService,
    private readonly rehash: RehashService,
  ) {
    this.#byHash = snapshotByHash(peppers.fingerprints.length);
  }

  /**
   * By SHA-256 of the secret, base64url.
   * @throws ApiError `unavailable` when it is not found, and may be stored under a pepper that this process lacks
   */
  async lookup(sha256: string): Promise<LookupResponse> {
    const { found, log } = await this.#read(sha256);
    return found ? { known: true, token: found.snapshot, log } : { known: false, token: null, log };
  }

  /** @throws ApiError as `lookup` does */
  async byHash(sha256: string): Promise<NamedSnapshot | null> {
    return (await this.#read(sha256)).found;
  }

  /**
   * The tokens with these secrets, read behind a proof that this is the primary: what is not among them does not exist,
   * unless `missing` says why it may. Act on those found before throwing that.
   */
  async idsByHashes(sha256s: readonly string[]): Promise<{ ids: string[]; missing: ApiError | null }> {
    const hashes = sha256s.flatMap((sha256) => this.hasher.hashes(sha256));
    const [row] = await this.db.proved<{ ids: string[]; lacking: string[] | null }>('token-ids-by-hash', IDS_BY_HASH, [
      hashes,
      this.peppers.fingerprints,
    ]);
    const { ids, lacking } = row!;
    return { ids, missing: ids.length < sha256s.length ? this.peppers.errorOf(lacking) : null };
  }

  /** The row joined with the log's, or the log's alone. */
  async #read(sha256: string): Promise<{ found: NamedSnapshot | null; log: string }> {
    const [row] = await this.db.authoritative<(SnapshotRow | { id: null }) & { log: string; lacking: string[] | null }>(
      'snapshot-by-hash',
      this.#byHash,
      [this.peppers.fingerprints, ...this.hasher.hashes(sha256)],
    );
    const { log } = row!;
    // A log that was renewed since the proof: what the database lost is not known yet.
    if (!this.db.isAcceptedLog(log))
      throw new AuthorityLost('a backup was restored: it is being compared with the ledger');
    if (row!.id === null) {
      const error = this.peppers.errorOf(row!.lacking);
      if (error) throw error;
      return { found: null, log };
    }
    this.rehash.found(row!.id, row!.pepper_id, sha256);
    await this.scopes.follow(row!.declared);
    return { found: this.named(row!), log };
  }

  /** From a row that was read. */
  named(row: SnapshotRow): NamedSnapshot {
    return { snapshot: this.#snapshot(row), name: row.name, generation: row.generation };
  }

  #snapshot(row: SnapshotRow): TokenSnapshot {
    const chain = [row, ...(row.ancestor_bounds ?? [])];
    const expiries = chain.flatMap((link) => (link.ends_at_ms === null ? [] : [Number(link.ends_at_ms)]));
    const scopes = row.scopes.filter(
      (scope) => this.scopes.isKnown(scope) && chain.every((link) => link.scopes.includes(scope)),
    );
    const rates = ratesOf(row.id, chain);
    return {
      id: row.id,
      kind: row.kind,
      ownerType: row.kind === 'pat' ? 'user' : 'project',
      ownerId: (row.owner_user_id ?? row.project_id)!,
      project: row.project_id ?? '',
      denial: denialOf(row, chain),
      expiresAtMs: expiries.length ? Math.min(...expiries) : 0,
      ...this.#effectiveScopes(row, scopes),
      ancestors: row.ancestors,
      allowedIps: chain.map((link) => link.allowed_ips).reduce(intersectAddresses),
      rateLimit: strictestRate(rates),
      rates,
    };
  }

  /** A personal token's scopes are limited to what its owner holds now; a project token's are its own, in that project only. */
  #effectiveScopes(row: SnapshotRow, scopes: string[]): Pick<TokenSnapshot, 'scopes' | 'allProjects' | 'grants'> {
    if (row.kind === 'prj') return { scopes, allProjects: false, grants: [{ project: row.project_id!, scopes }] };
    const role = row.owner_role!;
    const heldIn = (place: ProjectRole | null) => {
      const held = this.scopes.heldBy(role, place);
      return scopes.filter((scope) => held.has(scope));
    };
    if (role === 'admin') return { scopes: heldIn(null), allProjects: true, grants: [] };
    const grants = (row.memberships ?? []).map(([project, place]) => ({ project, scopes: heldIn(place) }));
    return { scopes: heldIn(null), allProjects: false, grants };
  }
}

function denialOf(row: SnapshotRow, chain: readonly (AncestorBounds | SnapshotRow)[]): string {
  // Ancestors are of the same generation: each was valid when the next was derived from it.
  const { generation, current_generation: current } = row;
  if (current === null || generation < current || chain.some((link) => link.revoked)) return 'revoked';
  if (chain.some((link) => link.disabled)) return 'disabled';
  if (row.owner_disabled) return 'owner_disabled';
  if (row.project_closed) return 'project_closed';
  return row.restored ? 'restored' : '';
}

/** The rate limits of a token and its ancestors, each counted under the token that has it. */
function ratesOf(
  id: string,
  chain: readonly { rate_limit: number | null; rate_window_seconds: number | null; rate_bucket: string }[],
): RpcRateBucket[] {
  return chain.flatMap(({ rate_limit: limit, rate_window_seconds: windowSeconds, rate_bucket: bucket }) =>
    limit === null || windowSeconds === null ? [] : [{ bucket: bucket === id ? '' : bucket, limit, windowSeconds }],
  );
}
