import { type Kind, runCase } from './differential/in-process.js';
import { runOverSockets } from './differential/over-sockets.js';
import { findProgram, type Program } from './differential/programs.js';
import { Origin, type ProxyProgram, startHaproxy, startNginx, startOurs } from './differential/proxies.js';
import { Tally } from './differential/tally.js';

/** The short form of `npm run differential`. */
const SEED = 7;
const STREAMS = 2_000;
const STREAMS_OVER_SOCKETS = 200;
const CONNECTIONS = 16;

const kindOf = (index: number): Kind => (index % 2 === 0 ? 'request' : 'response');

/** Undefined where the program is neither installed nor can be fetched. */
const program = (name: 'nginx' | 'haproxy'): Promise<Program | undefined> =>
  findProgram(name).catch((error: Error) => {
    console.warn(`${name} is not compared with: ${error.message}`);
    return undefined;
  });
const nginx = await program('nginx');
const haproxy = await program('haproxy');
const where = (found: unknown) => (found ? it : it.skip);

it('no message that the gateway accepts ends elsewhere for llhttp, also as forwarded', () => {
  const tally = new Tally(SEED);
  for (let index = 0; index < STREAMS; index++) tally.addInProcess(runCase(SEED, kindOf(index), index));
  expect(tally.failed).toEqual([]);
});

/** Runs the cases through a proxy and returns what failed. */
async function through(start: (origin: Origin) => Promise<ProxyProgram>): Promise<readonly string[]> {
  const origin = new Origin();
  await origin.listen();
  const tally = new Tally(SEED);
  try {
    await using proxy = await start(origin);
    let next = 0;
    const run = async () => {
      for (let index = next++; index < STREAMS_OVER_SOCKETS; index = next++)
        tally.addOverSockets(await runOverSockets(SEED, kindOf(index), index, [proxy], origin));
    };
    await Promise.all(Array.from({ length: CONNECTIONS }, run));
  } finally {
    await origin.close();
  }
  return tally.failed;
}

it('the engine reads over sockets what its parsers read', async () => {
  expect(await through(startOurs)).toEqual([]);
});

where(nginx)('no message that the gateway accepts ends elsewhere for nginx', async () => {
  expect(await through((origin) => startNginx(nginx!, origin))).toEqual([]);
});

where(haproxy)('no message that the gateway accepts ends elsewhere for HAProxy', async () => {
  expect(await through((origin) => startHaproxy(haproxy!, origin))).toEqual([]);
});
