import { randomInt } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { createServer } from 'node:net';

/**
 * Below the ephemeral ports (Linux 32768 and up, others 49152): a restarted server gets its port again, and a client that
 * connects in between cannot be assigned that port as its own and reach itself.
 */
const below = { from: 10_000, to: 32_000 };

/** A free port of 127.0.0.1, reserved as by {@link freePorts}. */
export async function freePort(): Promise<number> {
  const [port] = await freePorts(1);
  return port as number;
}

/**
 * Chooses ports of 127.0.0.1 that are free, at random, and reserves them until this process ends: no other caller, in any
 * process of this machine, gets them while their server is still starting or is stopped for a moment.
 *
 * @param count how many, in a row
 * @param range where to look
 */
export async function freePorts(count: number, range = below): Promise<number[]> {
  for (let attempt = 0; attempt < 200; attempt++) {
    const first = randomInt(range.from, range.to - count + 1);
    const ports = Array.from({ length: count }, (_, i) => first + i);
    if (await reserveAll(ports)) return ports;
  }
  throw new Error(`found no ${count} free ports in a row between ${range.from} and ${range.to}`);
}

async function reserveAll(ports: number[]): Promise<boolean> {
  const releases: (() => void)[] = [];
  for (const port of ports) {
    const release = (await canListen(port)) && (await reserve(port));
    if (!release) {
      for (const one of releases) one();
      return false;
    }
    releases.push(release);
  }
  return true;
}

/** Takes the UDP port of the same number as the reservation: exclusive on this machine, and released by any end. */
function reserve(port: number): Promise<(() => void) | null> {
  return new Promise((resolve) => {
    const holder = createSocket('udp4');
    holder.once('error', () => resolve(null));
    holder.bind({ port, address: '127.0.0.1', exclusive: true }, () => {
      holder.unref();
      resolve(() => holder.close());
    });
  });
}

/** Whether the port is free. */
export function canListen(port: number, host = '127.0.0.1'): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = createServer();
    probe.once('error', () => resolve(false));
    probe.listen(port, host, () => probe.close(() => resolve(true)));
  });
}
