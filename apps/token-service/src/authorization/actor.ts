import type { TokenFacts } from '@latchkey/contracts';
import type { Rights } from './rights.js';

/** A person who is signed in. */
export interface UserActor {
  type: 'user';
  userId: string;
  name: string;
  sessionId: string;
  rights: Rights;
}

/** A token that carries the request, acting for its owner. */
export interface TokenActor {
  type: 'token';
  tokenId: string;
  name: string;
  /** The person it acts for; null for a project token. */
  userId: string | null;
  /** The project of a project token. */
  projectId: string | null;
  rights: Rights;
  facts: TokenFacts;
}

/** The system itself: first start, expiry, overlaps. */
export interface SystemActor {
  type: 'system';
  name: string;
}

/** Who makes a request: a person or a token. */
export type Actor = UserActor | TokenActor;

/** Who did something, for the record. */
export type NamedActor =
  | Pick<UserActor, 'type' | 'userId' | 'name'>
  | Pick<TokenActor, 'type' | 'tokenId' | 'name'>
  | SystemActor;

export const SYSTEM: SystemActor = { type: 'system', name: 'system' };
