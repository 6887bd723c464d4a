import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { firstParty, tokensCaller } from '@latchkey/runtime';
import type { TokenService } from '../src/app.js';
import { GATEWAY_RPC_SECRET, issue, project, type World, world } from './harness.js';

let w: World;
let dir: string;
const closing: (() => void)[] = [];
beforeAll(async () => {
  dir = mkdtempSync(path.join(tmpdir(), 'latchkey-scopes-'));
  w = await world({ env: { SCOPES_FILE: declared('wide', '[owner, editor, viewer]') } });
});
afterAll(async () => {
  for (const close of closing) close();
  await w.close();
  rmSync(dir, { recursive: true });
});

function declared(name: string, roles: string): string {
  const file = path.join(dir, `${name}.yaml`);
  const scopes = [
    '{ name: demo:read, description: r, projectRoles: [owner, editor, viewer], members: true }',
    `{ name: demo:write, description: w, projectRoles: ${roles} }`,
  ];
  writeFileSync(file, `scopes:\n${scopes.map((scope) => `  - ${scope}\n`).join('')}`);
  return file;
}

const callerOf = (service: TokenService) => {
  const rpc = tokensCaller({
    address: service.rpcAddress,
    authorization: firstParty(GATEWAY_RPC_SECRET),
    timeoutMs: 5_000,
  });
  closing.push(() => rpc.close());
  return rpc;
};

it('scopes narrowed or widened by a new replica are narrowed or widened at the old one too', async () => {
  const [owner, viewer] = [await w.member(), await w.member()];
  const id = await project(owner);
  const added = await owner.call(`PUT /v1/projects/${id}/members/${viewer.user.id}`, { body: { role: 'viewer' } });
  expect(added.status).toBeLessThan(300);
  const { secret } = await issue(viewer, { scopes: ['demo:read', 'demo:write'] });
  const request = { token: secret, scopes: ['demo:write'], project: id, ip: '', route: '', userAgent: '' };
  const old = callerOf(w.service);
  expect(await old.verify(request)).toMatchObject({ allowed: true });

  const next = callerOf(await w.another({ SCOPES_FILE: declared('narrow', '[owner]') }));
  for (const rpc of [next, old]) expect(await rpc.verify(request)).toMatchObject({ denial: 'insufficient_scope' });
  const offered = await viewer.call<{ items: { name: string }[] }>('GET /v1/scopes');
  expect(offered.body.items.map(({ name }) => name)).toContain('demo:write');

  await w.another({ SCOPES_FILE: path.join(dir, 'wide.yaml') });
  for (const rpc of [next, old]) expect(await rpc.verify(request)).toMatchObject({ allowed: true });
});
