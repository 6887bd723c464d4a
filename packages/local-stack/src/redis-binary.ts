import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { debianPrograms, firstLine, hasApt, onPath } from './debian-packages.js';

const execute = promisify(execFile);

/** How Redis is run on this machine. */
export type RedisSource = { kind: 'program'; path: string } | { kind: 'container'; docker: string };

/** Debian's packages with redis-server and the libraries that few machines have. */
const packages = ['redis-server', 'redis-tools', 'libjemalloc2', 'liblzf1'];
/** Libraries that only minimal installations lack; fetched when the server does not start without them. */
const morePackages = [
  'libatomic1',
  'libsystemd0',
  'libssl3',
  'libssl3t64',
  'liblua5.1-0',
  'libgcrypt20',
  'libgpg-error0',
  'libcap2',
  'liblz4-1',
  'libzstd1',
  'liblzma5',
];

/**
 * Finds a real Redis (or Valkey): on PATH; else Debian's packages, fetched and unpacked without root into a cache;
 * else a container.
 *
 * @param log called when something is fetched
 * @throws Error naming what to install, when there is none
 */
export async function findRedis(log: (line: string) => void = () => undefined): Promise<RedisSource> {
  for (const name of ['redis-server', 'valkey-server']) {
    const found = onPath(name);
    if (found) return { kind: 'program', path: found };
  }
  const failures: string[] = [];
  if (hasApt()) {
    try {
      return { kind: 'program', path: await debianRedis(log) };
    } catch (error) {
      failures.push(`fetching Debian's packages failed (${firstLine(error)})`);
    }
  }
  const docker = onPath('docker');
  if (docker) {
    try {
      await execute(docker, ['version', '--format', '{{.Server.Version}}'], { timeout: 10_000 });
      return { kind: 'container', docker };
    } catch (error) {
      failures.push(`Docker is not running (${firstLine(error)})`);
    }
  }
  const tried = failures.length ? ` (${failures.join('; ')})` : '';
  throw new Error(`no Redis found${tried}; install redis-server or valkey-server, or set REDIS_URL to your own server`);
}

async function debianRedis(log: (line: string) => void): Promise<string> {
  const { programs } = await debianPrograms({
    name: 'redis',
    packages,
    more: morePackages,
    programs: { 'redis-server': 'usr/bin/redis-server' },
    check: ['--version'],
    message: "redis-server is not installed; fetching Debian's packages (once, about 1.5 MB)",
    log,
  });
  return programs['redis-server']!;
}
