import { hash as digest } from 'node:crypto';
import type { DenialReason, InvalidationKind, RpcRateBucket, TokenSnapshot } from '@latchkey/contracts';
import { Addresses } from './addresses.js';
import type { Counters } from './counters.js';
import type { VerifierLimits } from './limits.js';
import { denialOf, kindOf, ownerTypeOf, ratesOf } from './snapshot.js';

/** A subject of invalidations: an owner, a project, or a token that others were derived from. */
interface Tag {
  readonly id: string;
  live: boolean;
  refs: number;
}

/** What a token allows. Shared by all tokens with the same content. */
export interface Rights {
  readonly content: string;
  readonly kind: 'pat' | 'prj';
  readonly ownerType: 'user' | 'project';
  /** A project token's project; otherwise empty. */
  readonly project: string;
  readonly denial: DenialReason | '';
  /** Granted outside any project, or in a project token's project. */
  readonly scopes: ScopeList;
  readonly allProjects: boolean;
  /** Granted in these projects; null for none. */
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

/** Below every version. */
const DEAD = -1;

/** One remembered token. Memory use at a million tokens depends on its size: keep it small. */
export class Entry {
  /** The version of the memory at which it was last found alive. */
  version: number;
  referenced = false;

  constructor(
    readonly id: string,
    /** Unix milliseconds; 0: never. */
    readonly expiresAtMs: number,
    readonly owner: Tag,
    readonly rights: Rights,
    /** Tokens that it was derived from; null for none. */
    readonly ancestors: readonly Tag[] | null,
    version: number,
  ) {
    this.version = version;
  }
}

/**
 * A verifier's cache: tokens by the hash of their secret, and for a short time the hashes that are unknown.
 *
 * An invalidation clears one flag (of the entry, or of the owner, project or ancestor that entries point to) and raises
 * the memory's version; an entry with the memory's version is alive without further checks. Dropped entries stay in
 * place until they are filled again or evicted, so that their hashes are still known to exist.
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
  /** Entries remembered so far, and how many when the last accepted renewal was sent. */
  #remembered = 0;
  #confirmed = 0;
  /** Entries remembered from number `#freshFrom` on. */
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

  /** The token remembered under this hash; null: remembered as unknown; undefined: neither. Requires a valid lease. */
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

  /** Whether this hash has belonged to an existing token. Rarely true for one that has not. */
  isKnown(hash: string): boolean {
    return this.#entries.has(hash) || this.#evicted.has(hash);
  }

  /** Whether no invalidation has dropped the entry. */
  isAlive(entry: Entry): boolean {
    if (entry.version === this.#version) return true;
    if (entry.version < this.#resetVersion || !entry.owner.live) return false;
    if (entry.ancestors?.some(isDead) || entry.rights.projects.some(isDead)) return false;
    entry.version = this.#version;
    return true;
  }

  remember(hash: string, snapshot: TokenSnapshot): Entry {
    const rights = this.#intern(snapshot);
    const entry = new Entry(
      snapshot.id,
      snapshot.expiresAtMs,
      this.#tag(snapshot.ownerId),
      rights,
      snapshot.ancestors.length > 0 ? snapshot.ancestors.map((id) => this.#tag(id)) : null,
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

  /** Remembers for `missLifeMs` that no token has this hash. */
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

  /** Drops what the invalidation names. Constant time. */
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

  /** Drops all entries. */
  reset(): void {
    this.#resetVersion = ++this.#version;
    this.#misses.clear();
  }

  /** To pass to `confirm` when the renewal sent at this moment is accepted. */
  get watermark(): number {
    return this.#remembered;
  }

  /** Entries remembered before the watermark are of the history that the authority continues. */
  confirm(watermark: number): void {
    this.#fresh.splice(0, Math.max(0, watermark - this.#freshFrom));
    this.#freshFrom = Math.max(this.#freshFrom, watermark);
    this.#confirmed = watermark;
  }

  /** Drops entries that no renewal has confirmed: those remembered since the last watermark. */
  dropUnconfirmed(): void {
    if (this.#freshFrom > this.#confirmed) this.reset();
    for (const entry of this.#fresh) entry.version = DEAD;
    this.#misses.clear();
  }

  /** The second-chance (clock) algorithm: skips entries used since the last pass, at most 64 of them. */
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

  #intern(snapshot: TokenSnapshot): Rights {
    const { kind, ownerType, project, denial, scopes, allProjects, grants, allowedIps } = snapshot;
    const rates = ratesOf(snapshot);
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

/** A fixed table of 32-bit fingerprints of hashes; a later one can overwrite an earlier one. */
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

/** FNV-1a with the given seed; never 0, which marks an empty slot. */
function fingerprint(text: string, seed: number): number {
  let print = seed;
  for (let i = 0; i < text.length; i++) print = Math.imul(print ^ text.charCodeAt(i), 0x01000193);
  return print >>> 0 || 1;
}
