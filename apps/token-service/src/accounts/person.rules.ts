import type { Actor, UserActor } from '../authorization/index.js';
import { forbidden } from '../http/index.js';

/** @throws ApiError `forbidden` unless the caller is an administrator who is signed in */
export function mustAdminister(actor: Actor): asserts actor is UserActor {
  if (actor.type !== 'user')
    throw forbidden('Only a person who is signed in may do this; a token cannot, whatever it holds.');
  if (!actor.rights.everywhere) throw forbidden('Only administrators may do this.');
}
