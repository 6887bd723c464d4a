import type { AuditAction } from '@latchkey/contracts';

/**
 * What a ledger keeps of an audit event that takes rights away, or gives back what another took: ids, kinds, times and the
 * new bounds; no name, address of a caller, or secret.
 */
export interface LedgerEntry {
  /** Id of the audit event. */
  readonly e: string;
  /** When, in milliseconds since 1970. */
  readonly t: number;
  readonly a: AuditAction;
  /** The token, person or project; of a membership, the person. Absent for a change of everything. */
  readonly s?: string;
  /** The project of a membership. */
  readonly p?: string;
  /** Why a token was revoked. */
  readonly r?: string;
  /** The values that were set. */
  readonly v?: Bounds;
}

export interface Bounds {
  readonly scopes?: readonly string[];
  /** CIDRs; empty: any address. */
  readonly ips?: readonly string[];
  /** Null: none. */
  readonly rate?: { readonly limit: number; readonly windowSeconds: number } | null;
  readonly role?: string;
  /** A rotated token ends then at the latest, in milliseconds since 1970. */
  readonly endsAt?: number;
  readonly credential?: 'password' | 'second_factor';
}

/** An audit event, as far as its entry depends on it. */
export interface LedgerSource {
  readonly id: string;
  readonly at: Date;
  readonly action: AuditAction;
  readonly subject_id: string | null;
  readonly token_id: string | null;
  readonly project_id: string | null;
  readonly details: Readonly<Record<string, unknown>>;
}

type Details = LedgerSource['details'];

/** The new value of a field that an event has changed. */
const changedTo = (details: Details, field: string): unknown => (details[field] as { to?: unknown } | undefined)?.to;

const has = (bounds: Bounds): Bounds | null => (Object.keys(bounds).length > 0 ? bounds : null);

function tokenBounds(details: Details): Bounds | null {
  const [scopes, ips, rate] = ['scopes', 'allowedIps', 'rateLimit'].map((field) => changedTo(details, field));
  return has({
    ...(scopes !== undefined && { scopes: scopes as string[] }),
    ...(ips !== undefined && { ips: ips as string[] }),
    ...(rate !== undefined && { rate: rate as Bounds['rate'] & object }),
  });
}

const PASSWORDS_SET = ['changed', 'set with a code'];
/** Changes of a second factor after which an earlier state must not be accepted. */
const FACTORS_SET = ['added', 'removed', 'reset', 'recovery codes made', 'recovery code used'];

function personBounds({ role, password, secondFactor }: Details): Bounds | null {
  if (PASSWORDS_SET.includes(password as string)) return { credential: 'password' };
  if (FACTORS_SET.includes(secondFactor as string)) return { credential: 'second_factor' };
  return role === undefined ? null : { role: (role as { to: string }).to };
}

/** Per action, the bounds that the event set; null: it concerns no rights. */
const BOUNDS: Partial<Record<AuditAction, (event: LedgerSource) => Bounds | null>> = {
  'token.revoked': () => ({}),
  'token.disabled': () => ({}),
  'token.enabled': () => ({}),
  'token.updated': ({ details }) => tokenBounds(details),
  'token.rotated': ({ at, details }) => ({ endsAt: at.getTime() + Number(details['overlapSeconds']) * 1000 }),
  'tokens.revoked_all': () => ({}),
  'user.disabled': () => ({}),
  'user.enabled': () => ({}),
  'user.updated': ({ details }) => personBounds(details),
  'project.closed': () => ({}),
  'member.added': ({ details }) => ({ role: details['role'] as string }),
  'member.changed': ({ details }) => ({ role: changedTo(details, 'role') as string }),
  'member.removed': () => ({}),
  'policy.updated': () => ({}),
  'session.ended': () => ({}),
};

/** The actions whose events a ledger keeps. */
export const LEDGER_ACTIONS = Object.keys(BOUNDS) as AuditAction[];

/** The entry of an audit event; null: it changes no rights. */
export function entryOf(event: LedgerSource): LedgerEntry | null {
  const bounds = BOUNDS[event.action]?.(event) ?? null;
  if (bounds === null) return null;
  const subject = event.token_id ?? event.subject_id;
  const { reason } = event.details;
  return {
    e: event.id,
    t: event.at.getTime(),
    a: event.action,
    ...(subject !== null && { s: subject }),
    ...(event.action.startsWith('member.') && event.project_id !== null && { p: event.project_id }),
    ...(event.action === 'token.revoked' && typeof reason === 'string' && { r: reason }),
    ...(has(bounds) && { v: bounds }),
  };
}
