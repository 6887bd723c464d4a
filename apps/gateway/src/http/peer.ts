import type { Socket } from 'node:net';
import { plainAddress } from './plain-address.js';

/** A peer of the public port, determined once per connection. */
export interface Peer {
  readonly ip: string;
  /** Its X-Forwarded-* and X-Request-Id are trusted. */
  readonly trusted: boolean;
  readonly isTrusted: (ip: string) => boolean;
  /** The connection speaks TLS. Default false. */
  readonly encrypted?: boolean;
}

export function peerOf(
  socket: Pick<Socket, 'remoteAddress'>,
  isTrusted: (ip: string) => boolean,
  encrypted = false,
): Peer {
  const ip = plainAddress(socket.remoteAddress);
  return { ip, trusted: isTrusted(ip), isTrusted, encrypted };
}

/** The last address in X-Forwarded-For that is not a trusted proxy; an invalid entry ends the search. */
export function callerAddress(forwardedFor: string, peerIp: string, isTrusted: (ip: string) => boolean): string {
  let nearest = peerIp;
  const parts = forwardedFor.split(',');
  for (let i = parts.length - 1; i >= 0; i--) {
    const address = readAddress(parts[i]!.trim());
    if (address === undefined) return nearest;
    nearest = address;
    if (!isTrusted(address)) return nearest;
  }
  return nearest;
}

function readAddress(text: string): string | undefined {
  const [, bracketed, plainV4] = /^\[([0-9a-fA-F:.]+)\](?::\d+)?$|^(\d+\.\d+\.\d+\.\d+):\d+$/.exec(text) ?? [];
  const address = plainAddress(bracketed ?? plainV4 ?? text);
  return /^[0-9a-fA-F:.]{2,45}$/.test(address) ? address : undefined;
}
