import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { Project } from '@latchkey/contracts';
import { freePorts, waitFor } from '@latchkey/testing';
import { ask, Person } from '../src/caller.js';
import { placeOfRun, readyOf } from '../src/stack.js';

/*
 * The configuration files of examples/ as they stand, but for their ports, run by nginx and Caddy from PATH (or NGINX
 * and CADDY): both ask the gateway of this run and pass on to its demo upstream.
 */
const place = placeOfRun();
const { opsUrl } = readyOf(place);
const EXAMPLES = path.join(import.meta.dirname, '..', '..', 'examples');
/** As configured for the launcher. */
const demoPort = Number(new URL(opsUrl).port) + 6;

let admin: Person;
let project: Project;
let other: Project;
beforeAll(async () => {
  admin = await Person.admin(place);
  project = await admin.project('Proxies');
  other = await admin.project('Other proxies');
});

interface Proxy {
  url: string;
  child: ChildProcess;
}

async function start(name: 'nginx' | 'caddy', ownPort: number): Promise<Proxy> {
  const dir = path.join(place.dir, name);
  mkdirSync(dir, { recursive: true });
  cpSync(path.join(EXAMPLES, name), dir, { recursive: true });
  const [port] = await freePorts(1);
  for (const file of readdirSync(dir)) {
    const text = readFileSync(path.join(dir, file), 'utf8');
    const moved = text
      .replaceAll(`:${ownPort}`, `:${port}`)
      .replaceAll(':8081', `:${new URL(opsUrl).port}`)
      .replaceAll(':4010', `:${demoPort}`);
    writeFileSync(path.join(dir, file), moved);
  }
  const program = process.env[name.toUpperCase()] ?? name;
  const args =
    name === 'nginx'
      ? ['-p', dir, '-c', path.join(dir, 'nginx.conf')]
      : ['run', '--config', path.join(dir, 'Caddyfile')];
  const child = spawn(program, args, {
    env: { PATH: process.env['PATH'], HOME: dir, XDG_DATA_HOME: dir },
    stdio: 'ignore',
  });
  await once(child, 'spawn');
  const url = `http://127.0.0.1:${port}`;
  await waitFor(async () => (await ask(`${url}/nothing`)).status > 0, { what: `${name} responding` });
  return { url, child };
}

describe.each([
  ['nginx', 8088],
  ['caddy', 8089],
] as const)('%s', (name, ownPort) => {
  let proxy: Proxy;
  beforeAll(async () => {
    proxy = await start(name, ownPort);
  });
  afterAll(async () => {
    if (!proxy) return;
    proxy.child.kill('SIGTERM');
    await once(proxy.child, 'exit');
  });
  const documents = (of: Project) => `${proxy.url}/demo/projects/${of.id}/documents`;

  it('lets on what the gateway would, with who calls instead of the token', async () => {
    const token = await admin.issue({ kind: 'prj', projectId: project.id, scopes: ['demo:read', 'demo:write'] });
    const forged = {
      'x-latchkey-owner': 'evil',
      x_latchkey_owner: 'evil',
      'x-latchkey-project': 'evil',
      x_latchkey_project: 'evil',
    };
    const response = await ask<{ caller: object }>(
      `${documents(project)}?scope=users:write&project=${other.id}`,
      'GET',
      {
        token: token.secret,
        headers: forged,
      },
    );
    expect(response).toMatchObject({
      status: 200,
      body: { caller: { tokenId: token.id, owner: `project:${project.id}`, project: project.id } },
    });
    const created = await ask(documents(project), 'POST', { token: token.secret, json: { title: `through ${name}` } });
    expect(created.status).toBe(201);
  });

  it('refuses as the gateway would, with its status and challenge', async () => {
    const token = await admin.issue({ kind: 'prj', projectId: project.id, scopes: ['demo:read'] });
    const none = await ask(documents(project));
    expect([none.status, none.headers.get('www-authenticate')]).toEqual([
      401,
      expect.stringMatching(/^Bearer realm="[^"]+"$/),
    ]);
    const narrow = await ask(documents(project), 'POST', { token: token.secret, json: { title: 'x' } });
    expect([narrow.status, narrow.headers.get('www-authenticate')]).toEqual([
      403,
      expect.stringContaining('scope="demo:write"'),
    ]);
    expect((await ask(documents(other), 'GET', { token: token.secret })).status).toBe(403);
    expect((await ask(`${documents(project)}?access_token=${token.secret}`)).status).toBe(400);
    await admin.revoke(token.id);
    expect((await ask(documents(project), 'GET', { token: token.secret })).status).toBe(401);
  });

  it('passes 429 on, and requires the scope that it names on paths without a route', async () => {
    const token = await admin.issue({ scopes: ['demo:read'], rateLimit: { limit: 1, windowSeconds: 3_600 } });
    expect((await ask(`${proxy.url}/reports/x`, 'GET', { token: token.secret })).status).toBe(200);
    const limited = await ask(`${proxy.url}/reports/x`, 'GET', { token: token.secret });
    expect([limited.status, Number(limited.headers.get('retry-after')) > 0]).toEqual([429, true]);
    const narrow = await admin.issue({ scopes: ['tokens:read'] });
    expect((await ask(`${proxy.url}/reports/x`, 'GET', { token: narrow.secret })).status).toBe(403);
  });
});
