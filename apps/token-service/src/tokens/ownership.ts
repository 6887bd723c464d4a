import type { Actor, TokenActor } from '../access/index.js';
import { rows, type Tx } from '../database/database.service.js';
import { conflict, forbidden, lacksScope, notFound } from '../http/index.js';
import { type Bounds, mayUseScopeOn, mustBeWithin } from './token.rules.js';

/** Tokens made with tokens made with tokens: no deeper than this. */
const GENERATIONS_MAX = 8;

/**
 * Whom a new token acts for: the caller, or the project named.
 * @throws Refusal when the caller may not issue there
 */
export async function ownerFor(
  tx: Tx,
  actor: Actor,
  projectId: string | null,
): Promise<{ ownerUserId: string | null; projectId: string | null }> {
  if (projectId === null) {
    if (actor.userId === null)
      throw forbidden('A project token makes project tokens only (kind "prj", with its own projectId).');
    if (!actor.rights.holds('tokens:write')) throw lacksScope(['tokens:write']);
    return { ownerUserId: actor.userId, projectId: null };
  }
  const [project] = await rows<{ closed: boolean }>(
    tx,
    'SELECT closed_at IS NOT NULL AS closed FROM projects WHERE id = $1',
    [projectId],
  );
  if (!project || !actor.rights.belongsTo(projectId)) throw notFound('project');
  if (project.closed) throw conflict('The project is closed, so nothing is issued in it any more.');
  if (!mayUseScopeOn(actor, 'tokens:write', { ownerUserId: null, projectId })) {
    if (actor.type === 'token') throw lacksScope(['tokens:write']);
    throw forbidden('Your role in this project does not let you issue tokens. Ask an editor or owner of it.');
  }
  return { ownerUserId: null, projectId };
}

/**
 * The ancestors of a token made with another.
 * @throws Refusal when it exceeds its parent's bounds, or comes too many generations after the first
 */
export function ancestorsOfChild(parent: TokenActor, child: Bounds): string[] {
  mustBeWithin(parent, child);
  const ancestors = [parent.tokenId, ...parent.facts.ancestors];
  if (ancestors.length > GENERATIONS_MAX)
    throw conflict(`Tokens are made with tokens for at most ${GENERATIONS_MAX} generations.`);
  return ancestors;
}
