/** The gateway of the proxy benchmarks, with the token-service replaced by tokens in memory. */
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { testCredentials, testRedis } from '@latchkey/testing';
import { startAuthority } from './authority.mjs';
import { start } from './processes.mjs';

/**
 * @param {object} options
 * @param {string} options.dir for its files
 * @param {string} options.routes the routes file's text
 * @param {number} options.processor
 * @param {Record<string, string>} [options.env] further settings; the place for a number of processes
 * @param {(() => unknown)[]} options.stops what stops it is added here
 */
export async function startGateway({ dir, routes, processor, env = {}, stops }) {
  const redis = await testRedis();
  stops.push(() => redis.close());
  const authority = await startAuthority();
  stops.push(() => authority.close());
  const file = path.join(dir, 'gateway.yaml');
  writeFileSync(file, routes);
  const gateway = await start({
    args: [
      ...(process.env['GATEWAY_FLAGS']?.split(' ') ?? []),
      path.join(import.meta.dirname, '../../apps/gateway/dist/main.js'),
    ],
    processor,
    env: {
      PORT: '0',
      OPS_PORT: '0',
      AUTHZ_PORT: '0',
      RPC_ADDRESS: authority.address,
      ...testCredentials().gateway,
      REDIS_URL: redis.url,
      GATEWAY_CONFIG: file,
      CONSOLE_DIR: path.join(dir, 'console'),
      GATEWAY_PROCESSES: '1',
      ...env,
    },
    ready: /"url":"http:\/\/127\.0\.0\.1:(\d+)","opsPort":(\d+),"authzPort":(\d+)/,
  });
  stops.push(() => gateway.stop());
  const [port, opsPort, authzPort] = gateway.match.slice(1).map(Number);
  return {
    process: gateway,
    authority,
    port: /** @type {number} */ (port),
    opsPort: /** @type {number} */ (opsPort),
    authzPort: /** @type {number} */ (authzPort),
  };
}
