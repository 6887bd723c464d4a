import { connect } from 'node:net';
import { type ServiceError, status } from '@grpc/grpc-js';
import { tokensCaller } from '@latchkey/runtime';
import { AUTHORIZATION_CASES, type AuthorizationRead } from '@latchkey/testing';
import { issue, type World, world } from './harness.js';

let w: World;
let secret: string;
beforeAll(async () => {
  w = await world();
  ({ secret } = await issue(await w.signIn(), { scopes: ['tokens:verify'] }));
});
afterAll(() => w.close());

/** Sends the headers unchanged. */
function get(path: string, authorizations: readonly string[]): Promise<string> {
  const { hostname, port } = new URL(w.service.apiUrl);
  const lines = authorizations.map((value) => `Authorization: ${value}\r\n`).join('');
  return new Promise((resolve, reject) => {
    const socket = connect(Number(port), hostname, () =>
      socket.write(`GET ${path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n${lines}\r\n`, 'latin1'),
    );
    let text = '';
    socket.on('data', (chunk) => {
      text += chunk;
    });
    socket.on('end', () => resolve(text)).on('error', reject);
  });
}

const RESPONSES: Record<AuthorizationRead, [status: number, code: string | undefined]> = {
  absent: [401, 'unauthenticated'],
  malformed: [400, 'invalid_request'],
  other: [401, 'invalid_token'],
  secret: [200, undefined],
};

test.each(AUTHORIZATION_CASES)('the Authorization header over HTTP: $name', async ({ values, read }) => {
  const text = await get('/v1/tokens/self', values(secret));
  const code = /"code":"(\w+)"/.exec(text)?.[1];
  expect([Number(text.split(' ')[1]), code]).toEqual(RESPONSES[read]);
  if (read !== 'secret') expect(text).toMatch(/\r\nwww-authenticate: Bearer realm="latchkey"/i);
});

// HTTP/2 has one authorization value without surrounding space, and gRPC metadata is ASCII; nothing else reaches the guard.
const CARRIED = AUTHORIZATION_CASES.map(({ values, ...one }) => ({ ...one, given: values })).filter(({ given }) =>
  given('x').every((value, _, { length }) => length === 1 && /^([!-~]([ -~]*[!-~])?)?$/.test(value)),
);

test.each(CARRIED)('the authorization metadata over gRPC: $name', async ({ given, read }) => {
  const [authorization = ''] = given(secret);
  const caller = tokensCaller({ address: w.service.rpcAddress, authorization, timeoutMs: 10_000 });
  try {
    const called = caller.verify({ token: 'x', scopes: [], project: '', ip: '', route: '', userAgent: '' });
    const code = await called.then(
      () => status.OK,
      (error: ServiceError) => error.code,
    );
    expect(code).toBe(read === 'secret' ? status.OK : status.UNAUTHENTICATED);
  } finally {
    caller.close();
  }
});
