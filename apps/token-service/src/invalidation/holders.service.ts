import { FIRST_PARTY_CALLER } from '@latchkey/contracts';
import { Injectable } from '@nestjs/common';
import { Database } from '../database/index.js';
import { callerName, type RpcCaller } from '../rpc/index.js';
import type { LeaseCaller } from './leases.js';

interface HolderRow {
  ancestors: string[];
  owner_id: string;
  holder: string;
}

/** The owner whose limits a caller's leases count against. */
@Injectable()
export class HoldersService {
  constructor(private readonly db: Database) {}

  /** A token's leases count against the owner of its root ancestor, however many tokens were derived between. */
  async leaseCaller(caller: RpcCaller): Promise<LeaseCaller> {
    const id = callerName(caller);
    if (caller.type !== 'token') return { id, firstParty: true, holder: FIRST_PARTY_CALLER };
    const [row] = await this.db.prepared<HolderRow>(
      'lease-holder',
      `SELECT t.ancestors, coalesce(t.owner_user_id, t.project_id) AS owner_id,
         CASE WHEN r.owner_user_id IS NULL THEN 'project:' || r.project_id ELSE 'user:' || r.owner_user_id END AS holder
       FROM tokens t JOIN tokens r ON r.id = coalesce(t.ancestors[cardinality(t.ancestors)], t.id) WHERE t.id = $1`,
      [caller.tokenId],
    );
    if (!row) throw new Error('a token that was authenticated does not exist');
    const { ancestors, owner_id: ownerId, holder } = row;
    return { id, firstParty: false, holder, token: { id: caller.tokenId, ancestors, ownerId } };
  }
}
