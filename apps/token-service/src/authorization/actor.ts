import type { PersonRole, ProjectRole, TokenSnapshot } from '@latchkey/contracts';

/** A person who is signed in. */
export interface UserActor {
  type: 'user';
  userId: string;
  name: string;
  sessionId: string;
  rights: Rights;
}

/** The token of the request, acting for its owner. */
export interface TokenActor {
  type: 'token';
  tokenId: string;
  name: string;
  /** The person it acts for; null for a project token. */
  userId: string | null;
  /** The project of a project token. */
  projectId: string | null;
  rights: Rights;
  snapshot: TokenSnapshot;
}

/** The system itself: first start, expiry, the end of overlaps. */
export interface SystemActor {
  type: 'system';
  name: string;
}

/** Who makes a request: a person or a token. */
export type Actor = UserActor | TokenActor;

/** The actor of an audit event. */
export type NamedActor =
  | Pick<UserActor, 'type' | 'userId' | 'name'>
  | Pick<TokenActor, 'type' | 'tokenId' | 'name'>
  | SystemActor;

export const SYSTEM: SystemActor = { type: 'system', name: 'system' };

/** The id of a person or a token; null for the system. */
export function actorId(actor: Exclude<NamedActor, SystemActor>): string;
export function actorId(actor: NamedActor): string | null;
export function actorId(actor: NamedActor): string | null {
  if (actor.type === 'system') return null;
  return actor.type === 'user' ? actor.userId : actor.tokenId;
}

/** What an actor may do now: scopes outside projects, and in each project. */
export class Rights {
  constructor(
    /** Holds its scopes in every project: an administrator, or a token of one. */
    readonly everywhere: boolean,
    /** Held outside any project. */
    readonly outside: ReadonlySet<string>,
    /** Held in these projects; an empty set for membership without scopes. */
    readonly inProject: ReadonlyMap<string, ReadonlySet<string>>,
  ) {}

  /** Whether the scope is held: in the project named, or outside any. */
  holds(scope: string, projectId?: string): boolean {
    if (projectId === undefined || this.everywhere) return this.outside.has(scope);
    return this.inProject.get(projectId)?.has(scope) ?? false;
  }

  /** Whether the scope is held anywhere. */
  holdsSomewhere(scope: string): boolean {
    return this.outside.has(scope) || [...this.inProject.values()].some((scopes) => scopes.has(scope));
  }

  belongsTo(projectId: string): boolean {
    return this.everywhere || this.inProject.has(projectId);
  }

  /** The projects where the scope is held; `all` if it is held everywhere. */
  projectsWith(scope: string): 'all' | string[] {
    if (this.everywhere && this.outside.has(scope)) return 'all';
    return [...this.inProject].filter(([, scopes]) => scopes.has(scope)).map(([id]) => id);
  }
}

/** A person's role in an open project. */
export interface Membership {
  projectId: string;
  role: ProjectRole;
}

/** A scope that concerns what the caller may look up, not a project. */
const OUTSIDE_FOR_PROJECT_TOKENS = 'tokens:verify';

/** The rights of a person, by the declared scopes. */
export function rightsOfPerson(
  scopes: { heldBy(person: PersonRole, role: ProjectRole | null): ReadonlySet<string> },
  role: PersonRole,
  memberships: readonly Membership[],
): Rights {
  return new Rights(
    role === 'admin',
    scopes.heldBy(role, null),
    new Map(memberships.map((m) => [m.projectId, scopes.heldBy(role, m.role)])),
  );
}

/**
 * The rights of a token in the management API, by its snapshot. A project token has none outside its project, except
 * verifying tokens when an administrator has allowed it.
 */
export function rightsOfToken(snapshot: TokenSnapshot): Rights {
  const outside =
    snapshot.kind === 'prj' ? snapshot.scopes.filter((s) => s === OUTSIDE_FOR_PROJECT_TOKENS) : snapshot.scopes;
  return new Rights(
    snapshot.allProjects,
    new Set(outside),
    new Map(snapshot.grants.map(({ project, scopes }) => [project, new Set(scopes)])),
  );
}
