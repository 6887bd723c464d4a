import type { InvalidationKind, LookupResponse } from '@latchkey/contracts';
import { hashSecret, mint } from '@latchkey/token-format';
import type { Requirement } from '@latchkey/verifier';
import type { Random } from './random.js';

/** A token as the database has it. */
export interface Token {
  readonly name: string;
  readonly secret: string;
  readonly hash: string;
  readonly id: string;
  readonly kind: 'pat' | 'prj';
  /** A person, or the project itself. */
  readonly ownerId: string;
  /** A project token's project, else empty. */
  readonly project: string;
  readonly ancestors: readonly string[];
}

/** What the token-service's tables hold, besides leases and invalidations. */
export class Rights {
  readonly tokens = new Map<string, Token>();
  readonly revoked = new Set<string>();
  /** Tokens that lost `demo:write`. */
  readonly narrowed = new Set<string>();
  readonly disabled = new Set<string>();
  readonly closed = new Set<string>();
  /** `person project` of former members. */
  readonly left = new Set<string>();
  /** `demo:admin` is not a declared scope any more. */
  undeclared = false;

  copy(): Rights {
    const copy = new Rights();
    for (const [hash, token] of this.tokens) copy.tokens.set(hash, token);
    for (const set of ['revoked', 'narrowed', 'disabled', 'closed', 'left'] as const)
      for (const one of this[set]) copy[set].add(one);
    copy.undeclared = this.undeclared;
    return copy;
  }
}

/** What a lookup reads in one snapshot. */
export function lookup(rights: Rights, projects: readonly string[], hash: string): LookupResponse {
  const token = rights.tokens.get(hash);
  if (!token) return { known: false, token: null };
  const { id, kind, ownerId, project, ancestors } = token;
  const denial =
    rights.revoked.has(id) || ancestors.some((ancestor) => rights.revoked.has(ancestor))
      ? 'revoked'
      : rights.disabled.has(ownerId)
        ? 'owner_disabled'
        : rights.closed.has(project)
          ? 'project_closed'
          : '';
  const scopes = ['demo:read'];
  if (!rights.narrowed.has(id)) scopes.push('demo:write');
  if (!rights.undeclared) scopes.push('demo:admin');
  const memberOf = (at: string) => !rights.closed.has(at) && !rights.left.has(`${ownerId} ${at}`);
  return {
    known: true,
    token: {
      id,
      kind,
      ownerType: kind === 'pat' ? 'user' : 'project',
      ownerId,
      project,
      denial,
      expiresAtMs: 0,
      scopes,
      allProjects: false,
      grants: kind === 'pat' ? projects.filter(memberOf).map((at) => ({ project: at, scopes })) : [],
      ancestors: [...ancestors],
      allowedIps: [],
      rateLimit: null,
    },
  };
}

/** A change that narrows rights, or adds tokens that verifiers may remember as unknown. */
export interface Change {
  readonly name: string;
  readonly kind: InvalidationKind;
  readonly subject: string;
  readonly cut: boolean;
  apply(rights: Rights): void;
  /** Whether it takes this right away. */
  hits(token: Token, requirement: Requirement): boolean;
  /** Tokens that it adds. */
  readonly brings: readonly Token[];
}

/** People, projects and tokens, and the changes to them. */
export class Model {
  readonly people: readonly string[];
  readonly projects: readonly string[];
  readonly tokens: Token[] = [];
  readonly #random: Random;

  constructor(random: Random) {
    this.#random = random;
    this.people = [0, 1].map(() => random.uuid(0));
    this.projects = [0, 1].map(() => random.uuid(0));
    const tokens = random.int(3, 6);
    for (let i = 0; i < tokens; i++) this.tokens.push(this.make());
  }

  /** A new token, not yet in any table. */
  make(): Token {
    const random = this.#random;
    const kind = random.chance(0.7) ? 'pat' : 'prj';
    const project = kind === 'prj' ? random.pick(this.projects) : '';
    const parent = this.tokens.length > 0 && random.chance(0.4) ? random.pick(this.tokens) : undefined;
    const secret = mint(kind, 'lk', (n) => random.bytes(n));
    return {
      name: `token ${this.#count++}`,
      secret,
      hash: hashSecret(secret),
      id: random.uuid(0),
      kind,
      ownerId: project || random.pick(this.people),
      project,
      ancestors: parent ? [parent.id, ...parent.ancestors] : [],
    };
  }
  #count = 0;

  requirement(): Requirement {
    const random = this.#random;
    const scopes = [random.pick(['demo:read', 'demo:read', 'demo:write', 'demo:admin'])];
    return random.chance(0.3) ? { scopes, project: random.pick(this.projects) } : { scopes };
  }

  /** A change drawn at random; some have been made before, which is harmless. */
  change(): Change {
    const random = this.#random;
    const what = random.weighted({ revoke: 8, narrow: 2, disable: 1, close: 1, leave: 1, undeclare: 0.5, bring: 3 });
    const token = random.pick(this.tokens);
    const person = random.pick(this.people);
    const project = random.pick(this.projects);
    const inProject = ({ kind, project: own, ownerId }: Token, asked: string | undefined, at: string) =>
      kind === 'prj' ? own === at : asked === at && this.people.includes(ownerId);
    switch (what) {
      case 'revoke':
        return {
          name: `revoke ${token.name}`,
          kind: 'token',
          subject: token.id,
          cut: true,
          brings: [],
          apply: (rights) => rights.revoked.add(token.id),
          hits: ({ id, ancestors }) => id === token.id || ancestors.includes(token.id),
        };
      case 'narrow':
        return {
          name: `take demo:write from ${token.name}`,
          kind: 'token',
          subject: token.id,
          cut: false,
          brings: [],
          apply: (rights) => rights.narrowed.add(token.id),
          hits: ({ id }, { scopes }) => id === token.id && scopes.includes('demo:write'),
        };
      case 'disable':
        return {
          name: `disable person ${this.people.indexOf(person)}`,
          kind: 'owner',
          subject: person,
          cut: true,
          brings: [],
          apply: (rights) => rights.disabled.add(person),
          hits: ({ ownerId }) => ownerId === person,
        };
      case 'close':
        return {
          name: `close project ${this.projects.indexOf(project)}`,
          kind: 'project',
          subject: project,
          cut: true,
          brings: [],
          apply: (rights) => rights.closed.add(project),
          hits: (one, { project: asked }) => inProject(one, asked, project),
        };
      case 'leave':
        return {
          name: `person ${this.people.indexOf(person)} leaves project ${this.projects.indexOf(project)}`,
          kind: 'owner',
          subject: person,
          cut: false,
          brings: [],
          apply: (rights) => rights.left.add(`${person} ${project}`),
          hits: ({ kind, ownerId }, { project: asked }) => kind === 'pat' && ownerId === person && asked === project,
        };
      case 'undeclare':
        return {
          name: 'undeclare scope demo:admin',
          kind: 'everything',
          subject: '',
          cut: false,
          brings: [],
          apply: (rights) => {
            rights.undeclared = true;
          },
          hits: (_token, { scopes }) => scopes.includes('demo:admin'),
        };
      case 'bring': {
        const brings = [this.make()];
        return {
          name: `import ${brings[0]!.name}`,
          kind: 'misses',
          subject: '',
          cut: false,
          brings,
          apply: (rights) => {
            for (const one of brings) rights.tokens.set(one.hash, one);
          },
          hits: () => false,
        };
      }
    }
  }
}
