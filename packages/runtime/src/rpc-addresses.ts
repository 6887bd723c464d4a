import { type ChannelOptions, experimental, status } from '@grpc/grpc-js';

type Listener = experimental.ResolverListener;
type Endpoints = Parameters<Listener>[0];

const SCHEME = 'latchkey-list';

/** The target for a channel to all addresses: a list of `host:port`, separated by commas. */
export function targetOf(addresses: string): string {
  const list = addresses.split(',').map((address) => address.trim());
  return list.length === 1 ? list[0]! : `${SCHEME}:${list.join(',')}`;
}

/**
 * grpc-js knows several addresses of one name, but not several names. This resolves each by grpc-js's own resolver, and
 * gives the channel what all of them have; a name that cannot be resolved now keeps what it had before.
 */
class ListResolver implements experimental.Resolver {
  readonly #resolvers: experimental.Resolver[];
  readonly #results: (Endpoints | undefined)[];

  constructor(target: experimental.GrpcUri, listener: Listener, options: ChannelOptions) {
    const paths = target.path.split(',');
    this.#results = paths.map(() => undefined);
    this.#resolvers = paths.map((path, i) =>
      experimental.createResolver(
        { scheme: 'dns', path },
        (endpoints) => {
          if (endpoints.ok || !this.#results[i]?.ok) this.#results[i] = endpoints;
          const all = this.#combined(target);
          return all === undefined || listener(all, {}, null, '');
        },
        options,
      ),
    );
  }

  /** @returns undefined until each name has a result */
  #combined(target: experimental.GrpcUri): Endpoints | undefined {
    if (this.#results.includes(undefined)) return undefined;
    const endpoints = this.#results.flatMap((result) => (result?.ok ? result.value : []));
    if (endpoints.length > 0) return experimental.statusOrFromValue(endpoints);
    const details = `none of ${target.path} can be resolved`;
    return experimental.statusOrFromError({ code: status.UNAVAILABLE, details });
  }

  updateResolution(): void {
    for (const resolver of this.#resolvers) resolver.updateResolution();
  }

  destroy(): void {
    this.#results.fill(undefined);
    for (const resolver of this.#resolvers) resolver.destroy();
  }

  /** What certificates are compared with: the first address. */
  static getDefaultAuthority({ path }: experimental.GrpcUri): string {
    return path.split(',', 1)[0]!;
  }
}

experimental.registerResolver(SCHEME, ListResolver);
