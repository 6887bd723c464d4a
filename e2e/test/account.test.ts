import type { AuditEvent, Denial, Project, Usage } from '@latchkey/contracts';
import { waitFor } from '@latchkey/testing';
import { ask, Person } from '../src/caller.js';
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

describe('account', () => {
  it('tells an administrator the exact reason of a denial by its requestId', async () => {
    const revoked = await admin.issue({ scopes: ['demo:read'] });
    await admin.revoke(revoked.id);
    const wrongProject = await admin.issue({ kind: 'prj', projectId: project.id, scopes: ['demo:read'] });
    const narrow = await admin.issue({ kind: 'prj', projectId: other.id, scopes: ['demo:read'] });
    const cases = [
      {
        reason: 'revoked',
        token: revoked,
        response: await ask<{ requestId: string }>(documents(project), 'GET', { token: revoked.secret }),
      },
      {
        reason: 'wrong_project',
        token: wrongProject,
        response: await ask<{ requestId: string }>(documents(other), 'GET', { token: wrongProject.secret }),
      },
      {
        reason: 'insufficient_scope',
        token: narrow,
        response: await ask<{ requestId: string }>(documents(other), 'DELETE', { token: narrow.secret }),
      },
    ];
    for (const { reason, token, response } of cases) {
      const found = await waitFor(
        async () => {
          const denial = await admin.call<Denial>('GET', `/v1/denials/${response.body.requestId}`);
          return denial.status === 200 ? denial.body : undefined;
        },
        { timeoutMs: 15_000, intervalMs: 200, what: `the denial for ${reason}` },
      );
      expect(found).toMatchObject({ requestId: response.body.requestId, reason, tokenId: token.id });
    }
  });

  it('keeps who did what to a token, sealed into a chain that verifies', async () => {
    const token = await admin.issue({ name: 'audited' });
    await admin.call('PATCH', `/v1/tokens/${token.id}`, { json: { name: 'audited twice' } });
    await admin.revoke(token.id, 'policy');
    const events = await waitFor(
      async () => {
        const { body } = await admin.call<{ items: AuditEvent[] }>('GET', `/v1/audit?tokenId=${token.id}`);
        return body.items.length === 3 && body.items.every(({ hash }) => hash !== null) ? body.items : undefined;
      },
      { timeoutMs: 15_000, intervalMs: 200, what: 'three sealed events' },
    );
    expect(events.map(({ action }) => action).sort()).toEqual(['token.issued', 'token.revoked', 'token.updated']);
    for (const { actor } of events) expect(actor).toMatchObject({ type: 'user', id: admin.user.id });
    const chain = await admin.call('GET', '/v1/audit/verify');
    expect(chain.body).toMatchObject({ ok: true, firstBroken: null });
    const exported = await admin.call<string>('GET', `/v1/audit/export?format=csv&tokenId=${token.id}`);
    expect(exported.status).toBe(200);
    expect(exported.body).toContain('token.revoked');
  });

  it('counts every use of a token, and where it was used from', async () => {
    const token = await admin.issue({ scopes: ['demo:read'] });
    for (let i = 0; i < 7; i++)
      await ask(documents(project), 'GET', { token: token.secret, headers: { 'user-agent': 'e2e-counter' } });
    const usage = await waitFor(
      async () => {
        const { body } = await admin.call<Usage>('GET', `/v1/tokens/${token.id}/usage`);
        return body.total >= 7 ? body : undefined;
      },
      { timeoutMs: 30_000, intervalMs: 300, what: 'seven counted uses' },
    );
    expect(usage.total).toBe(7);
    expect(usage.callers).toContainEqual(expect.objectContaining({ userAgent: 'e2e-counter', count: 7 }));
    expect((await admin.token(token.id)).usageCount).toBe(7);
  });
});
