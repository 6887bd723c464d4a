import { literalPrefix, ownPathOf, type RouteSpec } from './schema.js';
import type { UpstreamTls } from './tls.js';
import { type UpstreamSettings, upstreamSettings } from './upstream.js';

/** What a request to a route requires of its token. */
export interface RouteRequirement {
  readonly scopes: readonly string[];
  readonly project: string | undefined;
}

export interface Cors {
  readonly anyOrigin: boolean;
  readonly origins: ReadonlySet<string>;
  readonly allowHeaders: string;
  readonly allowMethods: string;
}

/** A request target, as far as it is about encoded slashes. */
interface TargetReadings {
  readonly match: string;
  readonly readings: readonly string[] | undefined;
  readonly hasEncodedSlashes: boolean;
}

const NO_SCOPES: readonly string[] = [];
const CORS_METHODS = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE'];

/** One route, prepared for matching and forwarding. */
export class Route {
  readonly name: string;
  readonly public: boolean;
  readonly mcp: boolean;
  /** MCP: scopes by tool; `*` for all others. */
  readonly tools: ReadonlyMap<string, readonly string[]>;
  /** One or more that serve the same. */
  readonly upstreams: readonly UpstreamSettings[];
  readonly timeoutMs: number;
  /** The upstream gets the caller's Host, not its own. */
  readonly preserveHost: boolean;
  readonly allowEncodedSlashes: boolean;
  readonly forwardAuthorization: boolean;
  readonly trustedOrigin: boolean;
  readonly cors: Cors | undefined;
  /** Methods that the route offers; undefined: every method. */
  readonly methods: readonly string[] | undefined;
  readonly stripPrefix: string;

  /** Order of matching: no captures or `*` first, then the longest literal prefix, then the most segments. */
  readonly rank: readonly [number, number, number];
  readonly #prefix: string;
  readonly #segments: readonly string[];
  readonly #open: boolean;
  readonly #exact: boolean;
  readonly #captures: boolean;
  readonly #base: string;
  readonly #scopes: ReadonlyMap<string, readonly string[]> | undefined;
  readonly #project: string | undefined;
  readonly #projectSegment: number;

  constructor(spec: RouteSpec, tls?: UpstreamTls) {
    this.name = spec.name;
    this.public = spec.public;
    this.mcp = spec.kind === 'mcp';
    this.tools = new Map(Object.entries(spec.tools ?? {}));
    this.timeoutMs = spec.timeoutMs;
    this.preserveHost = spec.preserveHost;
    this.allowEncodedSlashes = spec.allowEncodedSlashes;
    this.forwardAuthorization = spec.forwardAuthorization;
    this.trustedOrigin = spec.trustedOrigin;
    this.stripPrefix = spec.stripPrefix ?? '';

    const urls = (spec.upstreams ?? [spec.upstream!]).map((address) => new URL(address));
    const settings = {
      keepAliveMs: spec.keepAliveMs,
      tls,
      isWatched: spec.upstreams !== undefined,
      healthCheck: spec.healthCheck,
    };
    this.upstreams = urls.map(({ origin }) => upstreamSettings(origin, settings));
    const { pathname } = urls[0]!;
    this.#base = pathname === '/' ? '' : pathname.replace(/\/$/, '');

    const segments = spec.path.slice(1).split('/');
    this.#open = segments.at(-1) === '*';
    this.#segments = this.#open ? segments.slice(0, -1) : segments;
    this.#prefix = literalPrefix(spec.path);
    this.#exact = this.#prefix === spec.path;
    this.#captures = spec.path.includes('{');
    this.rank = [this.#exact ? 1 : 0, this.#prefix.length, this.#segments.length];

    const byMethod = spec.require?.scopes;
    this.#scopes = byMethod && new Map(Object.entries(byMethod));
    this.methods = byMethod && !('*' in byMethod) ? Object.keys(byMethod) : undefined;
    this.#project = spec.require?.project;
    this.#projectSegment = this.#project?.startsWith('{') ? this.#segments.indexOf(this.#project) : -1;
    this.cors = spec.cors && {
      anyOrigin: spec.cors.origins.includes('*'),
      origins: new Set(spec.cors.origins),
      allowHeaders: ['Authorization', 'Content-Type', ...spec.cors.headers].join(', '),
      allowMethods: (this.methods ?? CORS_METHODS).join(', '),
    };
  }

  /** The segment that every path of this route begins with; undefined when it is captured. */
  get firstSegment(): string | undefined {
    const first = this.#segments[0];
    return first === undefined || first.startsWith('{') ? undefined : first;
  }

  matches(path: string): boolean {
    if (this.#exact) {
      // Many servers treat "/a" and "/a/" alike, so one rule must hold for both.
      return path === this.#prefix || (path.length === this.#prefix.length + 1 && path === `${this.#prefix}/`);
    }
    if (!path.startsWith(this.#prefix) && (path.length + 1 !== this.#prefix.length || `${path}/` !== this.#prefix))
      return false;
    if (!this.#captures) return true;
    const given = path.slice(1).split('/');
    if (given.at(-1) === '' && given.length > 1) given.pop();
    if (this.#open ? given.length < this.#segments.length : given.length !== this.#segments.length) return false;
    return this.#segments.every((segment, i) => (segment.startsWith('{') ? given[i] !== '' : segment === given[i]));
  }

  /** Null, which denies the request, when the method has no entry. HEAD counts as GET. */
  requirement(method: string, path: string): RouteRequirement | null {
    if (method === 'CONNECT' || method === 'TRACE') return null;
    const scopes = this.#scopes
      ? (this.#scopes.get(method === 'HEAD' ? 'GET' : method) ?? this.#scopes.get('*'))
      : NO_SCOPES;
    if (!scopes) return null;
    return { scopes, project: this.projectOf(path) };
  }

  /** The project that a request for a path requires of its token. */
  projectOf(path: string): string | undefined {
    return this.#projectSegment < 0 ? this.#project : path.split('/')[this.#projectSegment + 1];
  }

  /**
   * The path at the upstream for a path that this route matches; undefined when the prefix to strip contains
   * `;parameters`, since the rest would be another path.
   */
  upstreamPath(path: string): string | undefined {
    if (this.#exact && this.#base !== '') return this.#base;
    const rest = this.stripPrefix === '' ? path : path.slice(this.stripPrefix.length) || '/';
    if (rest[0] !== '/' || !path.startsWith(this.stripPrefix)) return undefined;
    return this.#base === '' ? rest : this.#base + rest;
  }
}

/** The routes in matching order. Immutable: a reload creates a new table. */
export class RouteTable {
  readonly routes: readonly Route[];
  /** Some route accepts encoded slashes. */
  readonly allowEncodedSlashes: boolean;
  readonly #byFirst = new Map<string, Route[]>();
  readonly #others: Route[];

  /** @param hash of the files that it was read from */
  constructor(
    routes: readonly Route[],
    readonly hash: string,
  ) {
    this.routes = [...routes].sort((a, b) => b.rank[0] - a.rank[0] || b.rank[1] - a.rank[1] || b.rank[2] - a.rank[2]);
    this.allowEncodedSlashes = this.routes.some(({ allowEncodedSlashes }) => allowEncodedSlashes);
    this.#others = this.routes.filter((route) => route.firstSegment === undefined);
    for (const { firstSegment } of this.routes) {
      if (firstSegment !== undefined && !this.#byFirst.has(firstSegment))
        this.#byFirst.set(
          firstSegment,
          this.routes.filter((route) => route.firstSegment === firstSegment || route.firstSegment === undefined),
        );
    }
  }

  /** The route of a path (`match` of `readTarget`); the longest literal prefix wins. */
  match(path: string): Route | undefined {
    const end = path.indexOf('/', 1);
    const candidates = this.#byFirst.get(end < 0 ? path.slice(1) : path.slice(1, end)) ?? this.#others;
    for (const route of candidates) if (route.matches(path)) return route;
    return undefined;
  }

  /**
   * Whether a path with encoded slashes can be forwarded: its route accepts them, unless all are encoded more than once, and
   * whatever an upstream makes of the path has the same rules.
   * @param target of `readTarget`
   */
  acceptsEncodedSlashes({ match: path, readings = [], hasEncodedSlashes }: TargetReadings): boolean {
    const route = this.match(path);
    if (ownPathOf(path) || (hasEncodedSlashes && !route?.allowEncodedSlashes)) return false;
    const project = route?.projectOf(path);
    return readings.every(
      (reading) => !ownPathOf(reading) && this.match(reading) === route && route?.projectOf(reading) === project,
    );
  }
}
