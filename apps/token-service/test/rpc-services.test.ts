import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { type Client, credentials, loadPackageDefinition, type ServiceError, status } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { firstParty, PROTO_OPTIONS, tokensCaller } from '@latchkey/runtime';
import { type FaultyLink, faultyLink, selfSigned, waitFor } from '@latchkey/testing';
import { protoPath as healthProto } from 'grpc-health-check';
import { asRole } from './database.js';
import { GATEWAY_RPC_SECRET, type World, world } from './harness.js';

let w: World;
const links: FaultyLink[] = [];
beforeAll(async () => {
  w = await world();
});
afterAll(async () => {
  await w.close();
  for (const link of links) await link.close();
});

type Call = (request: object, done: (error: ServiceError | null, response: Record<string, unknown>) => void) => void;
type AnyClient = Client & Record<string, Call>;

/** A client of one service, loaded from the proto as in any other program, without credentials. */
function clientOf(proto: string, service: string, address = w.service.rpcAddress): AnyClient {
  const loaded = loadPackageDefinition(loadSync(proto, { ...PROTO_OPTIONS, includeDirs: ['/'] }));
  const Service = service.split('.').reduce((at, part) => (at as Record<string, unknown>)[part], loaded as unknown);
  return new (Service as new (address: string, channel: unknown) => AnyClient)(address, credentials.createInsecure());
}

test('gRPC health is public, for the server and for each service', async () => {
  const client = clientOf(healthProto, 'grpc.health.v1.Health');
  const check = (service: string) =>
    new Promise((resolve, reject) =>
      client['check']!({ service }, (error, response) => (error ? reject(error) : resolve(response))),
    );
  try {
    expect(await check('')).toMatchObject({ status: 'SERVING' });
    expect(await check('latchkey.v1.Tokens')).toMatchObject({ status: 'SERVING' });
    await expect(check('nothing')).rejects.toMatchObject({ code: status.NOT_FOUND });
  } finally {
    client.close();
  }
});

test('gRPC health is NOT_SERVING while the database is unavailable', async () => {
  const link = await faultyLink(w.database.url);
  links.push(link);
  const service = await w.another({ DATABASE_URL: link.url(asRole(w.database.url, 'latchkey_service')) });
  const client = clientOf(healthProto, 'grpc.health.v1.Health', service.rpcAddress);
  const becomes = (expected: string) =>
    waitFor(
      async () => {
        const statuses = await Promise.all(
          ['', 'latchkey.v1.Tokens'].map(
            (name) =>
              new Promise((resolve, reject) =>
                client['check']!({ service: name }, (error, response) =>
                  error ? reject(error) : resolve(response['status']),
                ),
              ),
          ),
        );
        return statuses.every((one) => one === expected);
      },
      { timeoutMs: 20_000, what: `health ${expected}` },
    );
  try {
    await becomes('SERVING');
    link.cut();
    await becomes('NOT_SERVING');
    link.heal();
    await becomes('SERVING');
  } finally {
    link.heal();
    client.close();
  }
}, 60_000);

test('with a certificate the gRPC port accepts TLS only, from callers that trust it', async () => {
  const dir = mkdtempSync(path.join(tmpdir(), 'latchkey-tls-'));
  const file = (name: string, text: string) => {
    writeFileSync(path.join(dir, name), text, { mode: 0o600 });
    return path.join(dir, name);
  };
  const [own, other] = [selfSigned(), selfSigned()];
  const certFile = file('cert.pem', own.cert);
  const service = await w.another({ RPC_TLS_CERT_FILE: certFile, RPC_TLS_KEY_FILE: file('key.pem', own.key) });
  const verify = async (caFile?: string) => {
    const caller = tokensCaller({
      address: service.rpcAddress,
      authorization: firstParty(GATEWAY_RPC_SECRET),
      timeoutMs: 5_000,
      ...(caFile && { caFile }),
    });
    try {
      return (await caller.verify({ token: 'x', scopes: [], project: '', ip: '', route: '', userAgent: '' })).denial;
    } finally {
      caller.close();
    }
  };
  try {
    expect(await verify(certFile)).toBe('malformed');
    await expect(verify(file('other.pem', other.cert))).rejects.toMatchObject({ code: status.UNAVAILABLE });
    await expect(verify()).rejects.toMatchObject({ code: status.UNAVAILABLE });
  } finally {
    rmSync(dir, { recursive: true });
  }
}, 60_000);
