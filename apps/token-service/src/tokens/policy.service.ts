import type { Policy } from '@latchkey/contracts';
import { Injectable } from '@nestjs/common';
import { AuditService } from '../audit/index.js';
import type { Actor } from '../authorization/index.js';
import { Database, type Statement } from '../database/index.js';
import { forbidden } from '../http/index.js';
import { LocksService } from '../verification/index.js';
import { canonicalAddresses } from './token.entity.js';

const SELECT = `SELECT lifetime_seconds_max::float8 AS "lifetimeSecondsMax", expiry_required AS "expiryRequired",
  allowed_ip_prefixes AS "allowedIpPrefixes", idle_days AS "idleDays" FROM policy`;

/** Out: the `Policy`, to be read with other statements. */
export const SELECT_POLICY: Statement = [SELECT, []];

/** The policy for tokens, applied when one is issued, rotated or imported, or its addresses change. */
@Injectable()
export class PolicyService {
  constructor(
    private readonly db: Database,
    private readonly audit: AuditService,
    private readonly locks: LocksService,
  ) {}

  async read(): Promise<Policy> {
    const [policy] = await this.db.query<Policy>(SELECT);
    return policy!;
  }

  /** Replaces the policy, for administrators who are signed in; only `idleDays` affects existing tokens. */
  async put(actor: Actor, policy: Policy): Promise<Policy> {
    const allowedIpPrefixes = canonicalAddresses(policy.allowedIpPrefixes, 'allowedIpPrefixes');
    const after = { ...policy, allowedIpPrefixes };
    await this.db.change(async (change) => {
      const { now } = await this.locks.lock(change, actor);
      if (now.type !== 'user' || !now.rights.everywhere)
        throw forbidden('Only administrators who are signed in may change the policy.');
      const [before] = await change.read<Policy>([`${SELECT} FOR UPDATE`]);
      change.write([
        'UPDATE policy SET lifetime_seconds_max = $1, expiry_required = $2, allowed_ip_prefixes = $3, idle_days = $4',
        [after.lifetimeSecondsMax, after.expiryRequired, after.allowedIpPrefixes, after.idleDays],
      ]);
      this.audit.record(change, {
        actor: now,
        action: 'policy.updated',
        details: { from: before, to: after },
      });
    });
    return after;
  }
}
