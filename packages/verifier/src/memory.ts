import { hash as digest } from 'node:crypto';
import type { DenialReason, InvalidationKind, RpcRateBucket, TokenFacts } from '@latchkey/contracts';
import { Addresses } from './addresses.js';
import type { Counters } from './counters.js';
import type { VerifierLimits } from './limits.js';
import { denialOf, kindOf, ownerTypeOf, ratesOf } from './snapshot.js';

/** Something an invalidation may name: an owner, a project, a token that others were made with. */
interface Tag {
  readonly id: string;
  live: boolean;
  refs: number;
}

/** What a token allows. Shared by all tokens of which the same is true. */
export interface Rights {
  readonly content: string;
  readonly kind: 'pat' | 'prj';
  readonly ownerType: 'user' | 'project';
  /** A project token's project; otherwise empty. */
  readonly project: string;
  readonly denial: DenialReason | '';
  /** Held outside any project, or in a project token's project. */
  readonly scopes: ScopeList;
  readonly allProjects: boolean;
  /** Held in these projects; null for none. */
  readonly grants: ReadonlyMap<string, ScopeList> | null;
  /** Null: any address. */
  readonly addresses: Addresses | null;
  readonly rates: readonly RpcRateBucket[];
  readonly projects: readonly Tag[];
  refs: number;
}

/** Scope names, shared by content. */
export interface ScopeList {
  readonly names: readonly string[];
  readonly set: ReadonlySet<string>;
  readonly content: string;
  refs: number;
}

type MemoryLimits = Pick<VerifierLimits, 'entriesMax' | 'missesMax' | 'missLifeMs'>;

/** Below every version there is. */
const DEAD = -1;

/** One remembered token. Its shape is what a million of them cost: keep it small. */
export class Entry {
  /** The version of memory at which it was last found alive. */
  version: number;
  referenced = false;

  constructor(
    readonly id: string,
    /** Unix milliseconds; 0: never. */
    readonly expiresAtMs: number,
    readonly owner: Tag,
    readonly rights: Rights,
    /** Tokens that it was made with; null for none. */
    readonly ancestors: readonly Tag[] | null,
    version: number,
  ) {
    this.version = version;
  }
}

/**
 * What a verifier remembers: tokens by the hash of their secret, and for a moment the hashes that are unknown.
 *
 * An invalidation flips one flag (of the entry, or of the owner, project or ancestor that entries point to) and raises
 * the memory's version; an entry whose version is the memory's own needs no further look. Overtaken entries stay in
 * place, so that their hashes are still known to be real, until they are filled again or room is needed.
 */
export class Memory {
  readonly #limits: MemoryLimits;
  readonly #counters: Pick<Counters, 'evictions'>;
  readonly #entries = new Map<string, Entry>();
  readonly #byId = new Map<string, Entry>();
  readonly #tags = new Map<string, Tag>();
  readonly #rights = new Map<string, Rights>();
  readonly #scopes = new Map<string, ScopeList>();
  readonly #misses = new Map<string, number>();
  readonly #evicted: Fingerprints;
  #hand: MapIterator<[string, Entry]> | undefined;
  #version = 0;
  #resetVersion = 0;
  /** How many have been remembered so far, and how many when the renewal that was accepted last was sent. */
  #remembered = 0;
  #vouched = 0;
  /** Those remembered from `#freshFrom` on. */
  #fresh: Entry[] = [];
  #freshFrom = 0;

  constructor(limits: MemoryLimits, counters: Pick<Counters, 'evictions'>) {
    this.#limits = limits;
    this.#counters = counters;
    this.#evicted = new Fingerprints(limits.entriesMax);
  }

  get size(): number {
    return this.#entries.size;
  }

  get misses(): number {
    return this.#misses.size;
  }

  /** The token remembered under this hash, or null when it is remembered as unknown, or undefined. Asks for a held lease. */
  find(hash: string, monotonicMs: number): Entry | null | undefined {
    const entry = this.#entries.get(hash);
    if (entry !== undefined && this.isAlive(entry)) {
      entry.referenced = true;
      return entry;
    }
    const missedUntilMs = this.#misses.get(hash);
    if (missedUntilMs === undefined) return undefined;
    if (monotonicMs < missedUntilMs) return null;
    this.#misses.delete(hash);
    return undefined;
  }

  /** Whether this hash was ever seen to belong to a real token. May err, rarely, towards yes. */
  isKnown(hash: string): boolean {
    return this.#entries.has(hash) || this.#evicted.has(hash);
  }

  /** Whether no invalidation has overtaken the entry. */
  isAlive(entry: Entry): boolean {
    if (entry.version === this.#version) return true;
    if (entry.version < this.#resetVersion || !entry.owner.live) return false;
    if (entry.ancestors?.some(isDead) || entry.rights.projects.some(isDead)) return false;
    entry.version = this.#version;
    return true;
  }

  remember(hash: string, facts: TokenFacts): Entry {
    const rights = this.#intern(facts);
    const entry = new Entry(
      facts.id,
      facts.expiresAtMs,
      this.#tag(facts.ownerId),
      rights,
      facts.ancestors.length > 0 ? facts.ancestors.map((id) => this.#tag(id)) : null,
      this.#version,
    );
    rights.refs++;
    const old = this.#entries.get(hash);
    if (old) this.#drop(old);
    else while (this.#entries.size >= this.#limits.entriesMax) this.#evict();
    this.#entries.set(hash, entry);
    this.#byId.set(entry.id, entry);
    this.#misses.delete(hash);
    this.#remembered++;
    if (this.#fresh.length < this.#limits.entriesMax) this.#fresh.push(entry);
    else {
      this.#fresh = [];
      this.#freshFrom = this.#remembered;
    }
    return entry;
  }

  /** Nothing is known under this hash. */
  rememberMiss(hash: string, monotonicMs: number): void {
    const old = this.#entries.get(hash);
    if (old) {
      this.#entries.delete(hash);
      this.#drop(old);
    }
    this.#misses.delete(hash);
    if (this.#misses.size >= this.#limits.missesMax) this.#misses.delete(this.#misses.keys().next().value!);
    this.#misses.set(hash, monotonicMs + this.#limits.missLifeMs);
  }

  /** Overtakes what the invalidation names. Constant time. */
  apply(kind: InvalidationKind, subject: string): void {
    this.#version++;
    if (kind === 'everything') this.reset();
    else if (kind === 'misses') this.#misses.clear();
    else {
      const entry = this.#byId.get(subject);
      if (entry) entry.version = DEAD;
      const tag = this.#tags.get(subject);
      if (!tag) return;
      tag.live = false;
      this.#tags.delete(subject);
    }
  }

  /** Overtakes all that is remembered. */
  reset(): void {
    this.#resetVersion = ++this.#version;
    this.#misses.clear();
  }

  /** To be handed to `vouch` when the renewal that is sent at this moment is accepted. */
  get mark(): number {
    return this.#remembered;
  }

  /** Whatever was remembered before the mark is of the history that the authority goes on with. */
  vouch(mark: number): void {
    this.#fresh.splice(0, Math.max(0, mark - this.#freshFrom));
    this.#freshFrom = Math.max(this.#freshFrom, mark);
    this.#vouched = mark;
  }

  /** Overtakes what nothing vouches for: all that was remembered since the last mark. */
  doubt(): void {
    if (this.#freshFrom > this.#vouched) this.reset();
    for (const entry of this.#fresh) entry.version = DEAD;
    this.#misses.clear();
  }

  /** Second chance: the hand passes over entries used since its last visit; after 64 it takes what it finds. */
  #evict(): void {
    for (let passed = 0; ; ) {
      this.#hand ??= this.#entries.entries();
      const { done, value } = this.#hand.next();
      if (done) {
        this.#hand = undefined;
        continue;
      }
      const [hash, entry] = value;
      if (entry.referenced && ++passed <= 64 && this.isAlive(entry)) {
        entry.referenced = false;
        continue;
      }
      this.#entries.delete(hash);
      this.#evicted.add(hash);
      this.#drop(entry);
      this.#counters.evictions++;
      return;
    }
  }

  #drop(entry: Entry): void {
    if (this.#byId.get(entry.id) === entry) this.#byId.delete(entry.id);
    this.#release(entry.owner);
    for (const ancestor of entry.ancestors ?? []) this.#release(ancestor);
    const { rights } = entry;
    if (--rights.refs > 0) return;
    if (this.#rights.get(rights.content) === rights) this.#rights.delete(rights.content);
    for (const project of rights.projects) this.#release(project);
    for (const list of [rights.scopes, ...(rights.grants?.values() ?? [])]) {
      if (--list.refs === 0) this.#scopes.delete(list.content);
    }
  }

  #tag(id: string): Tag {
    let tag = this.#tags.get(id);
    if (!tag) {
      tag = { id, live: true, refs: 0 };
      this.#tags.set(id, tag);
    }
    tag.refs++;
    return tag;
  }

  #release(tag: Tag): void {
    if (--tag.refs === 0 && this.#tags.get(tag.id) === tag) this.#tags.delete(tag.id);
  }

  #intern(facts: TokenFacts): Rights {
    const { kind, ownerType, project, denial, scopes, allProjects, grants, allowedIps } = facts;
    const rates = ratesOf(facts);
    const content = digest(
      'sha256',
      JSON.stringify([kind, ownerType, project, denial, scopes, allProjects, grants, allowedIps, rates]),
      'base64url',
    );
    const known = this.#rights.get(content);
    if (known && !known.projects.some(isDead)) return known;
    const projects = new Set(grants.map((grant) => grant.project));
    if (project) projects.add(project);
    const rights: Rights = {
      content,
      kind: kindOf(kind),
      ownerType: ownerTypeOf(ownerType),
      project,
      denial: denialOf(denial),
      scopes: this.#scopeList(scopes),
      allProjects,
      grants: grants.length > 0 ? new Map(grants.map((g) => [g.project, this.#scopeList(g.scopes)])) : null,
      addresses: allowedIps.length > 0 ? new Addresses(allowedIps) : null,
      rates,
      projects: [...projects].map((id) => this.#tag(id)),
      refs: 0,
    };
    this.#rights.set(content, rights);
    return rights;
  }

  #scopeList(names: readonly string[]): ScopeList {
    const content = names.join(' ');
    let list = this.#scopes.get(content);
    if (!list) {
      list = { names: Object.freeze([...names]), set: new Set(names), content, refs: 0 };
      this.#scopes.set(content, list);
    }
    list.refs++;
    return list;
  }
}

const isDead = (tag: Tag): boolean => !tag.live;

/** A fixed table of 32-bit fingerprints of hashes; a later one may take an earlier one's place. */
class Fingerprints {
  readonly #table: Uint32Array;

  constructor(size: number) {
    this.#table = new Uint32Array(2 ** Math.ceil(Math.log2(Math.max(size, 2))));
  }

  add(hash: string): void {
    const print = fingerprint(hash, 0x811c9dc5);
    this.#table[this.#slot(hash)] = print;
  }

  has(hash: string): boolean {
    return this.#table[this.#slot(hash)] === fingerprint(hash, 0x811c9dc5);
  }

  #slot(hash: string): number {
    return fingerprint(hash, 0x9e3779b9) & (this.#table.length - 1);
  }
}

/** FNV-1a with the given start; never 0, which marks an empty place. */
function fingerprint(text: string, start: number): number {
  let print = start;
  for (let i = 0; i < text.length; i++) print = Math.imul(print ^ text.charCodeAt(i), 0x01000193);
  return print >>> 0 || 1;
}
