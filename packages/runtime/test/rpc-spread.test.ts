import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { Server, ServerCredentials, type ServiceDefinition, type sendUnaryData, status } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { PROTO_FILE, PROTO_PACKAGE } from '@latchkey/contracts';
import { firstParty, PROTO_OPTIONS, tokensCaller } from '../src/index.js';

const { [`${PROTO_PACKAGE}.Tokens`]: definition } = loadSync(PROTO_FILE, PROTO_OPTIONS);

/** A server of `Lookup` and `Release`, which counts calls; while it hangs it responds to none. It is reached by a link. */
async function serverAt(port = 0, options = {}) {
  const server = new Server(options);
  const sockets: Socket[] = [];
  const link = createServer((near) => {
    const far = connect(bound, '127.0.0.1');
    for (const [one, other] of [
      [near, far],
      [far, near],
    ] as const)
      one
        .on('error', () => undefined)
        .on('close', () => other.destroy())
        .pipe(other);
    sockets.push(near, far);
    state.connections++;
  });
  const state = {
    calls: 0,
    connections: 0,
    hangs: false,
    port: 0,
    /** As its process would be killed. */
    kill: () => {
      link.close();
      for (const socket of sockets) socket.resetAndDestroy();
      server.forceShutdown();
    },
  };
  const respond = (_: unknown, callback: sendUnaryData<object>) => {
    state.calls++;
    if (!state.hangs) callback(null, {});
  };
  server.addService(definition as ServiceDefinition, { Lookup: respond, Release: respond });
  const bound = await new Promise<number>((resolve, reject) =>
    server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, at) =>
      error ? reject(error) : resolve(at),
    ),
  );
  link.listen(port, '127.0.0.1');
  await once(link, 'listening');
  state.port = (link.address() as AddressInfo).port;
  return state;
}

const callerOf = (address: string) => tokensCaller({ address, authorization: firstParty('x'), timeoutMs: 20_000 });
const until = async (isTrue: () => boolean, work: () => Promise<unknown>) => {
  while (!isTrue()) await work();
};

let servers: Awaited<ReturnType<typeof serverAt>>[];
let caller: ReturnType<typeof callerOf>;
beforeEach(async () => {
  servers = [await serverAt(), await serverAt()];
  // One by a name and one by its address.
  caller = callerOf(`localhost:${servers[0]!.port}, 127.0.0.1:${servers[1]!.port}`);
});
afterEach(() => {
  caller.close();
  for (const { kill } of servers) kill();
});

const lookup = () => caller.lookup({ hash: '' });

describe('calls to several token-services', () => {
  test('are spread over them', async () => {
    await until(() => servers.every(({ calls }) => calls > 0), lookup);
    const before = servers.map(({ calls }) => calls);
    for (let i = 0; i < 40; i++) await lookup();
    const [first, second] = servers.map(({ calls }, i) => calls - before[i]!);
    expect([first, second]).toEqual([20, 20]);
  });

  test('go to the others at once when one dies, look-ups that were under way there too', async () => {
    await until(() => servers.every(({ calls }) => calls > 0), lookup);
    const [first, second] = servers as [(typeof servers)[0], (typeof servers)[0]];
    first.hangs = true;
    const before = first.calls;
    const pending = Array.from({ length: 10 }, lookup);
    await until(
      () => first.calls >= before + 5,
      () => new Promise((next) => setTimeout(next, 5)),
    );
    first.kill();
    expect((await Promise.allSettled(pending)).map((result) => result.status)).toEqual(pending.map(() => 'fulfilled'));
    const served = second.calls;
    for (let i = 0; i < 20; i++) await lookup();
    expect(second.calls).toBe(served + 20);
    // It is found again at its address.
    servers.push(await serverAt(first.port));
    await until(() => servers[2]!.calls > 0, lookup);
  });

  test('that change something are not sent twice', async () => {
    await until(() => servers.every(({ calls }) => calls > 0), lookup);
    for (const server of servers) server.hangs = true;
    const before = servers[0]!.calls + servers[1]!.calls;
    const pending = caller.release({ verifierId: '', claim: '' } as never);
    await until(
      () => servers[0]!.calls + servers[1]!.calls > before,
      () => new Promise((next) => setTimeout(next, 5)),
    );
    for (const { kill } of servers) kill();
    await expect(pending).rejects.toMatchObject({ code: status.UNAVAILABLE });
    expect(servers[0]!.calls + servers[1]!.calls).toBe(before + 1);
  });

  test('fail when none of the names can be resolved', async () => {
    const lost = callerOf('a.invalid:1,b.invalid:1');
    await expect(lost.lookup({ hash: '' })).rejects.toMatchObject({ code: status.UNAVAILABLE });
    lost.close();
  });

  test('are lost by no connection that a server ends for its age', async () => {
    const aged = await serverAt(0, { 'grpc.max_connection_age_ms': 200, 'grpc.max_connection_age_grace_ms': 5_000 });
    servers.push(aged);
    const one = callerOf(`127.0.0.1:${aged.port}`);
    await until(
      () => aged.connections >= 3,
      () => one.lookup({ hash: '' }),
    );
    one.close();
  });
});
