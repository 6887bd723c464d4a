// Starts a service of docker-compose.yml: node infra/docker/serve.mjs token-service|gateway|jobs
// An empty variable counts as absent, as Compose cannot leave one out. Sets what cannot be written into that file:
//   GATEWAY_CONFIG, SCOPES_FILE   the demo's when the profile "demo" is in COMPOSE_PROFILES, else those of /config
//   TRUSTED_PROXIES               the network that the gateways share with the entrance alone
import { lookup } from 'node:dns/promises';
import { networkInterfaces } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';

const FRONT = 'gateway-front';

/** The network in which the gateways are called FRONT, as a CIDR. Docker knows the name once the container is attached. */
async function frontNetwork() {
  for (let attempt = 0; attempt < 40; attempt += 1) {
    const names = await lookup(FRONT, { all: true }).catch(() => []);
    const addresses = new Set(names.map(({ address }) => address));
    const own = Object.values(networkInterfaces())
      .flatMap((list) => list ?? [])
      .find(({ address }) => addresses.has(address));
    if (own?.cidr) return own.cidr;
    await delay(250);
  }
  throw new Error(`no network in which this gateway is called ${FRONT}: compare its networks with docker-compose.yml`);
}

const service = process.argv[2];
for (const [name, value] of Object.entries(process.env)) if (value === '') delete process.env[name];
const demo = (process.env.COMPOSE_PROFILES ?? '').split(',').some((profile) => profile.trim() === 'demo');
const file = (demoFile, own) => (demo ? `/latchkey/infra/${demoFile}` : `/config/${own}`);
if (service === 'token-service') process.env.SCOPES_FILE ||= file('scopes.yaml', 'scopes.yaml');
if (service === 'gateway') {
  process.env.GATEWAY_CONFIG ||= file('gateway.yaml', 'routes.yaml');
  // The gateway's other processes inherit it.
  process.env.TRUSTED_PROXIES ||= await frontNetwork();
}
await import(`../../apps/${service}/dist/main.js`);
