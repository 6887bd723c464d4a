import type { Actor, TokenActor } from '../authorization/index.js';
import { type Change, type Statement } from '../database/index.js';
import { conflict, forbidden, lacksScope, notFound } from '../http/index.js';
import { type Bounds, mayUseScopeOn, mustBeWithin, type Owned } from './token.rules.js';

/** Tokens made with tokens made with tokens: no deeper than this. */
const GENERATIONS_MAX = 8;

/** Whom a token is to act for, by name; of a project whether it is closed. */
export interface OwnerName {
  name: string;
  closed: boolean;
}

/** The reading that `ownerOf` decides by: of the project, or where there is none of the person. */
export const selectOwner = (projectId: string | null, userId: string | null): Statement =>
  projectId === null
    ? ['SELECT name, false AS closed FROM users WHERE id = $1', [userId]]
    : ['SELECT name, closed_at IS NOT NULL AS closed FROM projects WHERE id = $1', [projectId]];

/** Whom a new token acts for: the caller, or the project named. @throws as `ownerOf` does */
export async function ownerFor(change: Change, actor: Actor, projectId: string | null): Promise<Owned> {
  const [project] = await change.read<OwnerName>(selectOwner(projectId, actor.userId));
  return ownerOf(actor, projectId, project);
}

/**
 * Whom a new token acts for: the caller, or the project named.
 * @param project as `selectOwner` found it
 * @throws Refusal when the caller may not issue there
 */
export function ownerOf(actor: Actor, projectId: string | null, project: OwnerName | undefined): Owned {
  if (projectId === null) {
    if (actor.userId === null)
      throw forbidden('A project token makes project tokens only (kind "prj", with its own projectId).');
    if (!actor.rights.holds('tokens:write')) throw lacksScope(['tokens:write']);
    return { ownerUserId: actor.userId, projectId: null };
  }
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
