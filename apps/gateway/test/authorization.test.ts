import { credentials, loadPackageDefinition } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { EXT_AUTHZ_PROTO_FILE } from '@latchkey/contracts';
import { PROTO_OPTIONS } from '@latchkey/runtime';
import { AUTHORIZATION_CASES, type AuthorizationRead } from '@latchkey/testing';
import { raw, type Stack, stack } from './stack.js';

let s: Stack;
let secret: string;
beforeAll(async () => {
  s = await stack((upstream) => `routes:\n  - { name: any, path: /any/*, upstream: "${upstream}", require: {} }\n`);
  ({ secret } = s.authority.issue());
});
afterAll(async () => s[Symbol.asyncDispose]());

const RESPONSES: Record<AuthorizationRead, [status: number, code: string]> = {
  absent: [401, 'unauthenticated'],
  malformed: [400, 'invalid_request'],
  other: [401, 'invalid_token'],
  secret: [200, ''],
};

describe.each([
  ['the proxy', () => s.gateway.port, '/any/x'],
  ["the gateway's own endpoint", () => s.gateway.port, '/gateway/whoami'],
  ['forward-auth', () => s.gateway.opsPort, '/forward-auth'],
])('%s reads an Authorization header as in the shared table', (_, port, path) => {
  it.each(AUTHORIZATION_CASES)('$name', async ({ values, read }) => {
    const lines = values(secret).map((value) => `Authorization: ${value}\r\n`);
    const request = `GET ${path} HTTP/1.1\r\nHost: g\r\nConnection: close\r\n${lines.join('')}\r\n`;
    const { status, body, headers } = await raw(port(), Buffer.from(request, 'latin1'));
    const [expected, code] = RESPONSES[read];
    if (read === 'secret') return expect([200, 204]).toContain(status);
    expect([status, JSON.parse(body).code]).toEqual([expected, code]);
    expect(headers['www-authenticate']).toMatch(/^Bearer realm="latchkey"/);
  });
});

describe('ext-authz', () => {
  type Checked = { deniedResponse: { status: { code: number }; body: string } | null };
  type Check = (request: object, done: (error: Error | null, checked: Checked) => void) => void;
  let client: { check: Check; close(): void };
  beforeAll(() => {
    const loaded = loadPackageDefinition(loadSync(EXT_AUTHZ_PROTO_FILE, PROTO_OPTIONS)) as unknown as {
      envoy: { service: { auth: { v3: { Authorization: new (address: string, c: object) => typeof client } } } };
    };
    const { Authorization } = loaded.envoy.service.auth.v3;
    client = new Authorization(`127.0.0.1:${s.gateway.authzPort}`, credentials.createInsecure());
  });
  afterAll(() => client.close());

  it.each(AUTHORIZATION_CASES)(
    'reads the Authorization header from Envoy as in the shared table: $name',
    async (one) => {
      const headers = one.values(secret).map((value) => ({ key: 'authorization', value }));
      const http = { method: 'GET', path: '/any/x', headers: {}, headerMap: { headers } };
      const { deniedResponse } = await new Promise<Checked>((resolve, reject) =>
        client.check({ attributes: { request: { http } } }, (error, checked) =>
          error ? reject(error) : resolve(checked),
        ),
      );
      const [status, code] = RESPONSES[one.untrimmed ?? one.read];
      expect([deniedResponse?.status.code ?? 200, deniedResponse ? JSON.parse(deniedResponse.body).code : '']).toEqual([
        status,
        code,
      ]);
    },
  );
});
