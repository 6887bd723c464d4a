import type { ProjectRole, Restore, RevocationReason } from '@latchkey/contracts';
import { newId } from '@latchkey/runtime';
import { Injectable } from '@nestjs/common';
import { type AuditEntry, AuditService } from '../audit/index.js';
import { SYSTEM } from '../authorization/index.js';
import { type Change, Database } from '../database/index.js';
import { unavailable } from '../http/index.js';
import { type Invalidation, InvalidationService } from '../invalidation/index.js';
import type { LedgerEntry, LedgerFindings } from '../ledger/index.js';
import { RestoredTokensService, RevokeAllService } from '../tokens/index.js';
import { isWider, narrowerBounds, type Replay, replayOf } from './replay.rules.js';
import {
  addToRestore,
  DROP_RESET_CODES,
  dropPasswords,
  dropSecondFactors,
  END_SESSIONS,
  insertReplays,
  insertRestore,
  LOCK_LOG,
  type LockedLog,
  type RestoreRow,
  selectReplayed,
  selectRestoreOf,
  settleRestoreRow,
  toRestore,
} from './restore.queries.js';

/** Tokens revoked in one transaction. */
const AT_ONCE = 500;
const BY_HAND_MAX = 100;
const COMMENT = 'Applied again from the ledger: the database was restored to a state from before it.';

/** Applies again what a restored database lacks, each change with an audit event of its own. Safe to repeat. */
@Injectable()
export class ReplayService {
  /** Tokens revoked for a history whose restore is not recorded yet: that can fail and be repeated. */
  #revoked = { history: '', tokens: 0 };

  constructor(
    private readonly db: Database,
    private readonly audit: AuditService,
    private readonly tokens: RestoredTokensService,
    private readonly revokeAll: RevokeAllService,
    private readonly invalidations: InvalidationService,
  ) {}

  /** @returns the restore, with what was done, and what is to be confirmed */
  async apply(findings: LedgerFindings): Promise<{ restore: Restore; invalidations: readonly Invalidation[] }> {
    const { revoked } = replayOf(findings.missing);
    const byReason = Map.groupBy(revoked, ([, reason]) => reason);
    const { history } = findings;
    const known = this.#revoked.history === history ? this.#revoked.tokens : 0;
    this.#revoked = { history, tokens: known };
    for (const [reason, tokens] of byReason)
      for (let at = 0; at < tokens.length; at += AT_ONCE) {
        const ids = tokens.slice(at, at + AT_ONCE).map(([id]) => id);
        this.#revoked.tokens += await this.tokens.revokeAgain(ids, reason as RevocationReason, COMMENT);
      }
    const done = await this.db.change(async (change) => {
      const [log] = await change.read<LockedLog>(LOCK_LOG);
      if (log?.history !== findings.history || !log.is_current)
        throw unavailable('PostgreSQL started again or was restored meanwhile: the ledger is compared again.');
      // Another replica may have applied some meanwhile, and people may have changed them since.
      const dealtWith = await change.read<{ event_id: string }>(selectReplayed(findings.missing.map(({ e }) => e)));
      const ids = new Set(dealtWith.map((row) => row.event_id));
      const missing = findings.missing.filter(({ e }) => !ids.has(e));
      const replay = replayOf(missing);
      const at = new Date();
      let reapplied = this.#revoked.tokens;
      const [known] = await change.read<RestoreRow>(selectRestoreOf(findings.history));
      const id = known?.id ?? newId();
      if (!known) change.write(insertRestore(id, findings.history, at, null, findings.reachesTo));
      if (missing.length === 0 && known) return { restore: toRestore(known), invalidations: [] };
      reapplied += await this.#everything(change, replay);
      reapplied += await this.#tokens(change, replay);
      const credentials = await this.#people(change, replay);
      reapplied += credentials.changed;
      reapplied += await this.#projects(change, replay);
      // Behind the locks of the people: none of them signs in with an old password afterwards.
      const sessions = await change.read(END_SESSIONS);
      change.write(DROP_RESET_CODES);
      const notReapplied = replay.byHand.slice(-BY_HAND_MAX).map(toCheck);
      const done = {
        reapplied,
        mustSetPassword: credentials.mustSetPassword,
        sessionsEnded: sessions.length,
        notReapplied,
      };
      change.write(addToRestore(id, done));
      if (log.settled_history === findings.history) change.write(settleRestoreRow(id, 'ledger', at));
      change.write(
        insertReplays(
          id,
          missing.map(({ e }) => e),
        ),
      );
      this.audit.record(change, {
        actor: SYSTEM,
        action: 'system.restored',
        subject: { type: 'system', id, name: 'restore' },
        details: { missing: missing.length, ...done, notReapplied: notReapplied.length },
      });
      const invalidations = [this.invalidations.write(change, { kind: 'everything', subject: '', cut: true })];
      const [row] = await change.read<RestoreRow>(selectRestoreOf(findings.history));
      return { restore: toRestore(row!), invalidations };
    });
    this.#revoked.tokens = 0;
    return done;
  }

  async #everything(change: Change, { everything }: Replay): Promise<number> {
    if (!everything) return 0;
    this.revokeAll.write(change, SYSTEM, { reason: 'unspecified', comment: COMMENT });
    return 1;
  }

  async #tokens(change: Change, { disabledTokens, bounds }: Replay): Promise<number> {
    const rows = await this.tokens.lock(change, [...new Set([...disabledTokens, ...bounds.keys()])]);
    let changed = 0;
    for (const row of rows) {
      const narrower = narrowerBounds(row, bounds.get(row.id) ?? {});
      const isDisabled = disabledTokens.has(row.id) && row.disabledAt === null;
      if (!narrower && !isDisabled) continue;
      this.tokens.narrow(change, row, narrower, isDisabled, COMMENT);
      changed++;
    }
    return changed;
  }

  async #people(change: Change, replay: Replay): Promise<{ changed: number; mustSetPassword: number }> {
    const { disabledPeople, roles, credentials } = replay;
    const ids = [...new Set([...disabledPeople, ...roles.keys()])];
    const rows = await change.read<{ id: string; name: string; role: string; disabled: boolean }>([
      'SELECT id, name, role, disabled_at IS NOT NULL AS disabled FROM users WHERE id = ANY ($1) ORDER BY id FOR NO KEY UPDATE',
      [ids],
    ]);
    let changed = 0;
    const record = (action: AuditEntry['action'], { id, name }: { id: string; name: string }, details: object = {}) => {
      changed++;
      const subject = { type: 'user' as const, id, name };
      this.audit.record(change, { actor: SYSTEM, action, subject, details: { ...details, comment: COMMENT } });
    };
    for (const row of rows) {
      if (disabledPeople.has(row.id) && !row.disabled) {
        change.write(['UPDATE users SET disabled_at = $2 WHERE id = $1', [row.id, new Date()]]);
        record('user.disabled', row);
      }
      if (row.role === 'admin' && roles.get(row.id) === 'member') {
        change.write([`UPDATE users SET role = 'member' WHERE id = $1`, [row.id]]);
        record('user.updated', row, { role: { from: 'admin', to: 'member' } });
      }
    }
    const people = await change.read<{ id: string; name: string }>(dropPasswords([...credentials.keys()]));
    const factors = [...credentials].flatMap(([id, which]) => (which === 'second_factor' ? [id] : []));
    change.write(...dropSecondFactors(factors));
    for (const person of people) record('user.updated', person, { password: 'must be set again' });
    return { changed, mustSetPassword: people.length };
  }

  async #projects(change: Change, { closedProjects, members }: Replay): Promise<number> {
    const closed = await change.read<{ id: string; name: string }>([
      'UPDATE projects SET closed_at = $2 WHERE id = ANY ($1) AND closed_at IS NULL RETURNING id, name',
      [[...closedProjects], new Date()],
    ]);
    for (const { id, name } of closed)
      this.audit.record(change, {
        actor: SYSTEM,
        action: 'project.closed',
        projectId: id,
        subject: { type: 'project', id, name },
        details: { comment: COMMENT },
      });
    let changed = closed.length;
    const rows = await change.read<{ project_id: string; user_id: string; role: ProjectRole; name: string }>([
      `SELECT m.project_id, m.user_id, m.role, u.name FROM members m JOIN users u ON u.id = m.user_id
       WHERE m.project_id = ANY ($1) ORDER BY m.project_id, m.user_id FOR UPDATE OF m`,
      [[...members.keys()]],
    ]);
    for (const row of rows) {
      const of = members.get(row.project_id)!;
      const target = of.get(row.user_id);
      if (target === undefined || !isWider(row.role, target)) continue;
      changed++;
      const where = [row.project_id, row.user_id];
      change.write(
        target === null
          ? ['DELETE FROM members WHERE project_id = $1 AND user_id = $2', where]
          : ['UPDATE members SET role = $3 WHERE project_id = $1 AND user_id = $2', [...where, target]],
      );
      this.audit.record(change, {
        actor: SYSTEM,
        action: target === null ? 'member.removed' : 'member.changed',
        projectId: row.project_id,
        subject: { type: 'member', id: row.user_id, name: row.name },
        details: { role: target === null ? row.role : { from: row.role, to: target }, comment: COMMENT },
      });
    }
    return changed;
  }
}

const toCheck = ({ a: action, s: id = '', t }: LedgerEntry): Restore['notReapplied'][number] => ({
  action,
  subject: { type: action.split('.', 1)[0]!, id },
  at: new Date(t).toISOString(),
});
