import type { IncomingMessage } from 'node:http';
import { Addresses } from '@latchkey/verifier';
import { plainAddress } from '../http/index.js';

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

  /** The method and path of the request that a proxy forwards; `untrusted` from other peers. */
  forwardedRequest(req: IncomingMessage): { method: string; uri: string } | 'untrusted' | undefined {
    const { 'x-forwarded-method': method, 'x-forwarded-uri': uri } = req.headers;
    if (method === undefined && uri === undefined) return undefined;
    if (!this.isForwardAuthPeer(this.ipOf(req))) return 'untrusted';
    return { method: String(method ?? 'GET'), uri: String(uri ?? '/') };
  }

  ipOf(req: IncomingMessage): string {
    return plainAddress(req.socket.remoteAddress);
  }
}
