import type { IncomingMessage } from 'node:http';
import { networkTest, plainAddress } from '../http/index.js';

/** Who is believed in what. */
export class Peers {
  readonly isTrustedProxy: (ip: string) => boolean;
  /** Whose X-Forwarded-Method and -Uri are believed. */
  readonly mayForward: (ip: string) => boolean;

  constructor(trustedProxies: readonly string[], forwardAuthPeers: readonly string[]) {
    this.isTrustedProxy = networkTest(trustedProxies);
    this.mayForward = networkTest(forwardAuthPeers);
  }

  ipOf(req: IncomingMessage): string {
    return plainAddress(req.socket.remoteAddress);
  }
}
