import type { IncomingMessage } from 'node:http';
import { Addresses } from '@latchkey/verifier';
import { plainAddress } from '../http/index.js';

/** Who is believed in what. */
export class Peers {
  readonly isTrustedProxy: (ip: string) => boolean;
  /** Whose X-Forwarded-Method and -Uri are believed. */
  readonly mayForward: (ip: string) => boolean;

  constructor(trustedProxies: readonly string[], forwardAuthPeers: readonly string[]) {
    const proxies = new Addresses(trustedProxies);
    const peers = new Addresses(forwardAuthPeers);
    this.isTrustedProxy = (ip) => proxies.include(ip);
    this.mayForward = (ip) => peers.include(ip);
  }

  /** The method and path of the request that a proxy forwards; `unbelieved` when somebody else says them. */
  forwardedBy(req: IncomingMessage): { method: string; uri: string } | 'unbelieved' | undefined {
    const { 'x-forwarded-method': method, 'x-forwarded-uri': uri } = req.headers;
    if (method === undefined && uri === undefined) return undefined;
    if (!this.mayForward(this.ipOf(req))) return 'unbelieved';
    return { method: String(method ?? 'GET'), uri: String(uri ?? '/') };
  }

  ipOf(req: IncomingMessage): string {
    return plainAddress(req.socket.remoteAddress);
  }
}
