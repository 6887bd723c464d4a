import type { Policy } from '@latchkey/contracts';
import { addressesWithin } from '@latchkey/verifier';
import { Injectable } from '@nestjs/common';
import { AuditService } from '../audit/index.js';
import type { Actor } from '../authorization/index.js';
import { type Change, Database, type Statement } from '../database/index.js';
import { badField, forbidden } from '../http/index.js';
import { LocksService } from '../verification/index.js';
import { canonicalAddresses } from './token.rules.js';

export interface PolicyRow {
  lifetime_seconds_max: string | null;
  expiry_required: boolean;
  allowed_ip_prefixes: string[];
  idle_days: number | null;
}

/** What the policy looks at. */
interface Demanded {
  createdAt: Date;
  end: Date | null;
  allowedIps: readonly string[];
}

const SELECT = 'SELECT lifetime_seconds_max, expiry_required, allowed_ip_prefixes, idle_days FROM policy';

/** What administrators demand of tokens, asked whenever one is issued, rotated, imported or given other addresses. */
@Injectable()
export class PolicyService {
  constructor(
    private readonly db: Database,
    private readonly audit: AuditService,
    private readonly locks: LocksService,
  ) {}

  /** @param change where one is under way */
  async read(change?: Change): Promise<Policy> {
    const [row] = change ? await change.read<PolicyRow>(SELECT_POLICY) : await this.db.query<PolicyRow>(SELECT);
    return toPolicy(row!);
  }

  /** Replaces the policy; tokens that exist are only touched by `idleDays`. Administrators who are signed in. */
  async put(actor: Actor, policy: Policy): Promise<Policy> {
    const allowedIpPrefixes = canonicalAddresses(policy.allowedIpPrefixes, 'allowedIpPrefixes');
    const after = { ...policy, allowedIpPrefixes };
    await this.db.change(async (change) => {
      const { now } = await this.locks.lock(change, actor);
      if (now.type !== 'user' || !now.rights.everywhere)
        throw forbidden('Only administrators who are signed in may change the policy.');
      const [row] = await change.read<PolicyRow>([`${SELECT} FOR UPDATE`]);
      change.write([
        'UPDATE policy SET lifetime_seconds_max = $1, expiry_required = $2, allowed_ip_prefixes = $3, idle_days = $4',
        [after.lifetimeSecondsMax, after.expiryRequired, after.allowedIpPrefixes, after.idleDays],
      ]);
      this.audit.record(change, {
        actor: now,
        action: 'policy.updated',
        details: { from: toPolicy(row!), to: after },
      });
    });
    return after;
  }

  /**
   * @param tokens their addresses as canonical CIDRs; their ends, null for never
   * @throws Refusal naming the field that the policy does not allow, and what it demands
   */
  async mustMeet(change: Change, ...tokens: readonly Demanded[]): Promise<void> {
    mustMeetPolicy(await this.read(change), ...tokens);
  }

  /** Only the demand on addresses: for changes that leave the end as it is. */
  async mustMeetAddresses(change: Change, allowedIps: readonly string[]): Promise<void> {
    mustNameAddresses(await this.read(change), allowedIps);
  }

  /** The end that a successor keeps, cut to what the policy allows one that begins now. */
  async latestEnd(change: Change, createdAt: Date, end: Date | null): Promise<Date | null> {
    const { lifetimeSecondsMax } = await this.read(change);
    if (lifetimeSecondsMax === null) return end;
    const latest = new Date(createdAt.getTime() + lifetimeSecondsMax * 1_000);
    return end === null || end > latest ? latest : end;
  }
}

/** The reading of the policy, for whoever reads more along with it; `toPolicy` makes one of its row. */
export const SELECT_POLICY: Statement = [SELECT, []];

/** As `mustMeet`, with the policy at hand. */
export function mustMeetPolicy(policy: Policy, ...tokens: readonly Demanded[]): void {
  for (const token of tokens) {
    mustEndInTime(policy, token);
    mustNameAddresses(policy, token.allowedIps);
  }
}

function mustEndInTime(policy: Policy, { createdAt, end }: { createdAt: Date; end: Date | null }): void {
  const { lifetimeSecondsMax, expiryRequired } = policy;
  if (end === null) {
    if (!expiryRequired && lifetimeSecondsMax === null) return;
    throw badField('expiresAt', 'the policy here allows no token without an end: give expiresInSeconds');
  }
  if (lifetimeSecondsMax !== null && end.getTime() - createdAt.getTime() > lifetimeSecondsMax * 1_000)
    throw badField('expiresAt', `the policy here allows a token to live ${lifetimeSecondsMax} seconds at most`);
}

function mustNameAddresses({ allowedIpPrefixes }: Policy, allowedIps: readonly string[]): void {
  if (allowedIpPrefixes.length === 0 || addressesWithin(allowedIps, allowedIpPrefixes)) return;
  throw badField('allowedIps', `the policy here demands addresses within ${allowedIpPrefixes.join(', ')}`);
}

export const toPolicy = (row: PolicyRow): Policy => ({
  lifetimeSecondsMax: row.lifetime_seconds_max === null ? null : Number(row.lifetime_seconds_max),
  expiryRequired: row.expiry_required,
  allowedIpPrefixes: row.allowed_ip_prefixes,
  idleDays: row.idle_days,
});
