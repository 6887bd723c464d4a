import type { IssuedToken, Project, TokenEffect, User } from '@latchkey/contracts';
import { waitFor } from '@latchkey/testing';
import { ask, noteSecret, Person } from '../src/caller.js';
import { placeOfRun, readyOf } from '../src/stack.js';

/* Everything here is real: the launcher's own processes, PostgreSQL and Redis, reached through the gateway alone. */

const place = placeOfRun();
const { url } = readyOf(place);
let admin: Person;
let project: Project;
let other: Project;

beforeAll(async () => {
  admin = await Person.admin(place);
  project = await admin.project('Observatory');
  other = await admin.project('Elsewhere');
});

const documents = (of: Project) => `${url}/demo/projects/${of.id}/documents`;
const problem = (status: number, code: string) => ({ status, body: { status, code, requestId: expect.any(String) } });

describe('revoke', () => {
  it('refuses the token on the next request once revoke has returned effective', async () => {
    for (let round = 0; round < 10; round++) {
      const token = await admin.issue({ scopes: ['demo:read'] });
      expect((await ask(documents(project), 'GET', { token: token.secret })).status).toBe(200);
      const { effective, receipt } = await admin.revoke(token.id);
      expect(effective).toBe(true);
      expect(receipt!.verifiers.length).toBeGreaterThan(0);
      expect((await ask(documents(project), 'GET', { token: token.secret })).status).toBe(401);
    }
  });

  it('lets no request through that began after the response, under load', async () => {
    const token = await admin.issue({ scopes: ['demo:read'] });
    let revokedAt = Number.POSITIVE_INFINITY;
    const late: number[] = [];
    let running = true;
    const worker = async () => {
      while (running) {
        const asked = performance.now();
        const { status } = await ask(documents(project), 'GET', { token: token.secret });
        if (status === 200 && asked > revokedAt) late.push(asked - revokedAt);
      }
    };
    const workers = Array.from({ length: 8 }, worker);
    await waitFor(async () => (await ask(documents(project), 'GET', { token: token.secret })).status === 200);
    expect((await admin.revoke(token.id)).effective).toBe(true);
    revokedAt = performance.now();
    await new Promise((resolve) => setTimeout(resolve, 500));
    running = false;
    await Promise.all(workers);
    expect(late).toEqual([]);
  });

  it('is harmless when repeated, and returns the receipt again', async () => {
    const token = await admin.issue({});
    const first = await admin.revoke(token.id);
    const again = await admin.revoke(token.id);
    expect([first.effective, again.effective]).toEqual([true, true]);
    expect(again.token.revokedAt).toBe(first.token.revokedAt);
  });

  it('returns 202 at once to callers that do not wait', async () => {
    const token = await admin.issue({});
    const response = await admin.call<TokenEffect>('POST', `/v1/tokens/${token.id}/revoke`, {
      json: {},
      headers: { prefer: 'wait=0' },
    });
    expect([200, 202]).toContain(response.status);
    expect(response.body.effective).toBe(response.status === 200);
  });

  it('lets a token end itself', async () => {
    const token = await admin.issue({ scopes: ['demo:read'] });
    expect(await ask(`${url}/v1/tokens/self`, 'GET', { token: token.secret })).toMatchObject({
      status: 200,
      body: { id: token.id },
    });
    expect((await ask(`${url}/v1/tokens/self`, 'DELETE', { token: token.secret })).status).toBe(200);
    expect((await ask(documents(project), 'GET', { token: token.secret })).status).toBe(401);
  });

  it('ends what was reported as exposed, and does not show which were real', async () => {
    const token = await admin.issue({ scopes: ['demo:read'] });
    const response = await ask(`${url}/v1/tokens/revoke-exposed`, 'POST', {
      json: { tokens: [token.secret, 'lk_pat_000000000000000000000000000000000000'] },
    });
    expect(response.status).toBe(202);
    expect(JSON.stringify(response.body)).not.toContain(token.id);
    await waitFor(async () => (await ask(documents(project), 'GET', { token: token.secret })).status === 401);
  });
});

describe('rotate', () => {
  it('hands over to a successor: with overlap both are good, without it the old one ends at once', async () => {
    const old = await admin.issue({ scopes: ['demo:read'] });
    const rotate = (id: string, overlapSeconds: number) =>
      admin.call<IssuedToken>('POST', `/v1/tokens/${id}/rotate`, { json: { overlapSeconds } });
    const second = await rotate(old.id, 3_600);
    noteSecret(place, second.body.secret);
    expect(second).toMatchObject({ status: 201, body: { rotatedFrom: old.id } });
    for (const { secret } of [old, second.body])
      expect((await ask(documents(project), 'GET', { token: secret })).status).toBe(200);
    const third = await rotate(second.body.id, 0);
    noteSecret(place, third.body.secret);
    expect((await ask(documents(project), 'GET', { token: second.body.secret })).status).toBe(401);
    expect((await ask(documents(project), 'GET', { token: third.body.secret })).status).toBe(200);
  });
});

describe('people and projects', () => {
  const password = 'a-long-enough-pass-phrase';
  const member = async (email: string) => {
    const made = await admin.call<User>('POST', '/v1/users', {
      json: { email, name: 'Member', role: 'member', password },
    });
    expect(made.status).toBe(201);
    return Person.signIn(place, email, password);
  };
  const put = (of: Project, person: Person, role: string) =>
    admin.call('PUT', `/v1/projects/${of.id}/members/${person.user.id}`, { json: { role } });

  it('let a personal token do what its owner can do now, and no more', async () => {
    const person = await member(`narrow-${Date.now()}@example.org`);
    expect((await put(project, person, 'editor')).status).toBe(200);
    const token = await person.issue({ scopes: ['demo:read', 'demo:write'] });
    const write = () => ask(documents(project), 'POST', { token: token.secret, json: { title: 'x' } });
    expect((await write()).status).toBe(201);
    expect((await ask(documents(other), 'GET', { token: token.secret })).status).toBe(403);
    expect((await put(project, person, 'viewer')).status).toBe(200);
    expect((await write()).status).toBe(403);
    expect((await ask(documents(project), 'GET', { token: token.secret })).status).toBe(200);
    expect((await admin.call('DELETE', `/v1/projects/${project.id}/members/${person.user.id}`)).status).toBe(200);
    expect((await ask(documents(project), 'GET', { token: token.secret })).status).toBe(403);
  });

  it("stop a disabled person's tokens and sessions on the next request", async () => {
    const person = await member(`disabled-${Date.now()}@example.org`);
    expect((await put(project, person, 'viewer')).status).toBe(200);
    const token = await person.issue({ scopes: ['demo:read'] });
    expect((await ask(documents(project), 'GET', { token: token.secret })).status).toBe(200);
    expect(await admin.call('PATCH', `/v1/users/${person.user.id}`, { json: { disabled: true } })).toMatchObject({
      status: 200,
      body: { effective: true },
    });
    expect((await ask(documents(project), 'GET', { token: token.secret })).status).toBe(401);
    expect((await person.call('GET', '/v1/session')).status).toBe(401);
  });

  it("stop a closed project's tokens on the next request", async () => {
    const closing = await admin.project('Closing');
    const token = await admin.issue({ kind: 'prj', projectId: closing.id, scopes: ['demo:read'] });
    expect((await ask(documents(closing), 'GET', { token: token.secret })).status).toBe(200);
    expect(await admin.call('DELETE', `/v1/projects/${closing.id}`)).toMatchObject({
      status: 200,
      body: { effective: true },
    });
    expect((await ask(documents(closing), 'GET', { token: token.secret })).status).toBe(401);
  });

  it('show a member nothing of others, and let no one sign in with a wrong password', async () => {
    const person = await member(`stranger-${Date.now()}@example.org`);
    const foreign = await admin.issue({ kind: 'prj', projectId: other.id, scopes: ['demo:read'] });
    for (const [method, path] of [
      ['GET', `/v1/tokens/${foreign.id}`],
      ['DELETE', `/v1/tokens/${foreign.id}`],
      ['GET', `/v1/tokens/${foreign.id}/usage`],
      ['GET', '/v1/users'],
      ['GET', '/v1/audit'],
    ] as const) {
      expect([403, 404]).toContain((await person.call(method, path)).status);
    }
    const wrong = await ask(`${url}/v1/session`, 'POST', {
      json: { email: person.user.email, password: 'not the password' },
      headers: { origin: url },
    });
    expect(wrong).toMatchObject(problem(401, 'sign_in_failed'));
  });

  it('let a token issue only within its own rights', async () => {
    const parent = await admin.issue({ scopes: ['tokens:write', 'demo:read'] });
    const issue = (scopes: string[]) =>
      ask<IssuedToken>(`${url}/v1/tokens`, 'POST', { token: parent.secret, json: { name: 'child', scopes } });
    expect((await issue(['demo:write'])).status).toBe(403);
    const child = await issue(['demo:read']);
    expect(child.status).toBe(201);
    noteSecret(place, child.body.secret);
    expect((await ask(`${url}/v1/tokens/${parent.id}`, 'GET', { token: child.body.secret })).status).toBe(403);
  });
});
