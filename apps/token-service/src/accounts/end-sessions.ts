import type { AuditService } from '../audit/index.js';
import type { Actor, SystemActor } from '../authorization/index.js';
import { type Change } from '../database/index.js';

/**
 * Ends sessions of a person, each with its audit event.
 * @param which `all`, `{except}` one, or `{only}` one
 * @returns the number of sessions ended
 */
export async function endSessionsOf(
  change: Change,
  audit: AuditService,
  actor: Actor | SystemActor,
  person: { id: string; name: string },
  which: 'all' | { except: string } | { only: string },
): Promise<number> {
  const condition = which === 'all' ? '' : 'except' in which ? 'AND id <> $2' : 'AND id = $2';
  const named = which === 'all' ? [] : ['except' in which ? which.except : which.only];
  const ended = await change.read<{ id: string }>([
    `DELETE FROM sessions WHERE user_id = $1 ${condition} RETURNING id`,
    [person.id, ...named],
  ]);
  audit.recordAll(
    change,
    ended.map(({ id }) => ({ actor, action: 'session.ended', subject: { type: 'session', id, name: person.name } })),
  );
  return ended.length;
}
