import { Addresses } from '@latchkey/verifier';
import type { RequestHead } from '../http/index.js';

/** Which peers are trusted for which headers. */
export class Peers {
  readonly isTrustedProxy: (ip: string) => boolean;
  /** Whether an address's X-Forwarded-Method and -Uri are trusted. */
  readonly isForwardAuthPeer: (ip: string) => boolean;

  constructor(trustedProxies: readonly string[], forwardAuthPeers: readonly string[]) {
    const proxies = new Addresses(trustedProxies);
    const peers = new Addresses(forwardAuthPeers);
    this.isTrustedProxy = (ip) => proxies.include(ip);
    this.isForwardAuthPeer = (ip) => peers.include(ip);
  }

  /**
   * The method and path of the request that a proxy forwards; `untrusted` from other peers.
   * @param ip of the peer
   */
  forwardedRequest(ip: string, head: RequestHead): { method: string; uri: string } | 'untrusted' | undefined {
    const { forwardedMethod: method, forwardedUri: uri } = head;
    if (method === undefined && uri === undefined) return undefined;
    if (!this.isForwardAuthPeer(ip)) return 'untrusted';
    return { method: method ?? 'GET', uri: uri ?? '/' };
  }
}
