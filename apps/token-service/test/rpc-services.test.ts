import { type Client, credentials, loadPackageDefinition, type ServiceError, status } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { PROTO_OPTIONS } from '@latchkey/runtime';
import { protoPath as healthProto } from 'grpc-health-check';
import { issue, type World, world } from './harness.js';

let w: World;
beforeAll(async () => {
  w = await world();
});
afterAll(() => w.close());

type Call = (request: object, done: (error: ServiceError | null, answer: Record<string, unknown>) => void) => void;
type AnyClient = Client & Record<string, Call>;

/** A client of one service, made from the proto as any other program would make it, without credentials. */
function clientOf(proto: string, service: string): AnyClient {
  const loaded = loadPackageDefinition(loadSync(proto, { ...PROTO_OPTIONS, includeDirs: ['/'] }));
  const Service = service.split('.').reduce((at, part) => (at as Record<string, unknown>)[part], loaded as unknown);
  return new (Service as new (address: string, channel: unknown) => AnyClient)(
    w.service.rpcAddress,
    credentials.createInsecure(),
  );
}

test('health is told to anybody, for the whole and for the service', async () => {
  const client = clientOf(healthProto, 'grpc.health.v1.Health');
  const check = (service: string) =>
    new Promise((resolve, reject) =>
      client['check']!({ service }, (error, answer) => (error ? reject(error) : resolve(answer))),
    );
  try {
    expect(await check('')).toMatchObject({ status: 'SERVING' });
    expect(await check('latchkey.v1.Tokens')).toMatchObject({ status: 'SERVING' });
    await expect(check('nothing')).rejects.toMatchObject({ code: status.NOT_FOUND });
  } finally {
    client.close();
  }
});

test('every method but health and reflection refuses a caller without credentials', async () => {
  const { PROTO_FILE } = await import('@latchkey/contracts');
  const { secret } = await issue(await w.member());
  for (const service of ['Tokens', 'Maintenance']) {
    const client = clientOf(PROTO_FILE, `latchkey.v1.${service}`);
    const definition = loadSync(PROTO_FILE, PROTO_OPTIONS)[`latchkey.v1.${service}`]!;
    try {
      for (const name of Object.keys(definition)) {
        const method = name.charAt(0).toLowerCase() + name.slice(1);
        const called = new Promise((resolve, reject) =>
          client[method]!({ token: secret }, (error, answer) => (error ? reject(error) : resolve(answer))),
        );
        await expect(called).rejects.toMatchObject({ code: status.UNAUTHENTICATED });
      }
    } finally {
      client.close();
    }
  }
});
