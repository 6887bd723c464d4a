import { type ProjectRole, type RateLimit, type RevocationReason, revocationReasonSchema } from '@latchkey/contracts';
import { intersectAddresses } from '@latchkey/verifier';
import type { LedgerEntry } from '../ledger/index.js';

/** What a history lacks, as the state that it should have: of several changes of one thing the last counts. */
export interface Replay {
  /** By token. */
  revoked: Map<string, RevocationReason>;
  disabledTokens: Set<string>;
  bounds: Map<string, TokenBounds>;
  /** All tokens were revoked. */
  everything: boolean;
  disabledPeople: Set<string>;
  roles: Map<string, string>;
  credentials: Map<string, 'password' | 'second_factor'>;
  closedProjects: Set<string>;
  /** By project, then person; null: no member. */
  members: Map<string, Map<string, ProjectRole | null>>;
  /** For people to check. */
  byHand: LedgerEntry[];
}

export interface TokenBounds {
  scopes?: readonly string[];
  ips?: readonly string[];
  rate?: RateLimit | null;
  endsAtMs?: number;
}

/** @param missing in the order of time */
export function replayOf(missing: readonly LedgerEntry[]): Replay {
  const replay: Replay = {
    revoked: new Map(),
    disabledTokens: new Set(),
    bounds: new Map(),
    everything: false,
    disabledPeople: new Set(),
    roles: new Map(),
    credentials: new Map(),
    closedProjects: new Set(),
    members: new Map(),
    byHand: [],
  };
  for (const entry of missing) add(replay, entry);
  return replay;
}

function add(replay: Replay, entry: LedgerEntry): void {
  const { a: action, s: subject = '', p: project = '', v: values = {} } = entry;
  switch (action) {
    case 'token.revoked':
      replay.revoked.set(subject, revocationReasonSchema.catch('unspecified').parse(entry.r));
      return;
    case 'token.disabled':
      replay.disabledTokens.add(subject);
      return;
    case 'token.enabled':
      replay.disabledTokens.delete(subject);
      return;
    case 'token.rotated':
    case 'token.updated': {
      const { scopes, ips, rate, endsAt } = values;
      replay.bounds.set(subject, {
        ...replay.bounds.get(subject),
        ...(scopes && { scopes }),
        ...(ips && { ips }),
        ...(rate !== undefined && { rate }),
        ...(endsAt !== undefined && { endsAtMs: endsAt }),
      });
      return;
    }
    // With anything else that is missing, all sessions end.
    case 'session.ended':
      return;
    case 'tokens.revoked_all':
      replay.everything = true;
      return;
    case 'user.disabled':
      replay.disabledPeople.add(subject);
      return;
    case 'user.enabled':
      replay.disabledPeople.delete(subject);
      return;
    case 'user.updated':
      if (values.role) replay.roles.set(subject, values.role);
      // A person who must prove a new second factor must set a password too.
      if (values.credential && replay.credentials.get(subject) !== 'second_factor')
        replay.credentials.set(subject, values.credential);
      return;
    case 'project.closed':
      replay.closedProjects.add(subject);
      return;
    case 'member.added':
    case 'member.changed':
    case 'member.removed': {
      const members = replay.members.get(project) ?? new Map<string, ProjectRole | null>();
      replay.members.set(project, members.set(subject, (values.role as ProjectRole | undefined) ?? null));
      return;
    }
    default:
      replay.byHand.push(entry);
  }
}

interface StoredBounds {
  scopes: string[];
  allowedIps: string[];
  rateLimit: number | null;
  rateWindowSeconds: number | null;
  overlapEndsAt: Date | null;
}

/** A token's bounds where they are narrower than those of the restored row; null: nowhere. */
export function narrowerBounds(row: StoredBounds, bounds: TokenBounds): Partial<StoredBounds> | null {
  const scopes = bounds.scopes && row.scopes.filter((scope) => bounds.scopes!.includes(scope));
  const allowedIps = bounds.ips && intersectAddresses(row.allowedIps, bounds.ips);
  const rate = bounds.rate && isStricter(bounds.rate, row) ? bounds.rate : null;
  const endsAt = bounds.endsAtMs === undefined ? null : new Date(bounds.endsAtMs);
  const narrower = {
    ...(scopes && scopes.length < row.scopes.length && { scopes }),
    ...(allowedIps && allowedIps.join() !== row.allowedIps.join() && { allowedIps }),
    ...(rate && { rateLimit: rate.limit, rateWindowSeconds: rate.windowSeconds }),
    ...(endsAt && (row.overlapEndsAt === null || endsAt < row.overlapEndsAt) && { overlapEndsAt: endsAt }),
  };
  return Object.keys(narrower).length > 0 ? narrower : null;
}

const isStricter = (rate: RateLimit, { rateLimit, rateWindowSeconds }: StoredBounds): boolean =>
  rateLimit === null || rateWindowSeconds === null || rate.limit / rate.windowSeconds < rateLimit / rateWindowSeconds;

const RANK: Record<ProjectRole, number> = { viewer: 0, editor: 1, owner: 2 };

/** Whether a member has more rights than the role that the ledger knows. */
export const isWider = (role: ProjectRole, target: ProjectRole | null): boolean =>
  target === null || RANK[role] > RANK[target];
