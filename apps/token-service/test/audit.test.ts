import { changeSchema } from './database.js';
import { ADMIN_PASSWORD, everythingStored, issue, type Person, project, type World, world } from './harness.js';
import type { AuditEvent, Page } from './types.js';

let w: World;
let admin: Person;
beforeAll(async () => {
  w = await world();
  admin = await w.signIn();
});
afterAll(() => w.close());

const events = async (query: Record<string, string>) =>
  (await admin.call<Page<AuditEvent>>('/v1/audit', { query: { limit: '100', ...query } })).body.items;

/** While `run` runs, no event of that action can be written. */
async function withAuditFailing<T>(action: string, run: () => Promise<T>): Promise<T> {
  await changeSchema(
    w.database,
    `
    CREATE FUNCTION fail_${action.replace('.', '_')}() RETURNS trigger LANGUAGE plpgsql AS
      $$ BEGIN RAISE EXCEPTION 'audit insert failed'; END $$;
    CREATE TRIGGER fail_${action.replace('.', '_')} BEFORE INSERT ON audit_events FOR EACH ROW
      WHEN (NEW.action = '${action}') EXECUTE FUNCTION fail_${action.replace('.', '_')}();`,
  );
  try {
    return await run();
  } finally {
    await changeSchema(w.database, `DROP FUNCTION fail_${action.replace('.', '_')} CASCADE`);
  }
}

describe('every change writes an audit event, or is not made', () => {
  type Case = [
    action: string,
    prepare: (person: Person) => Promise<string>,
    change: (id: string) => string,
    body?: object,
  ];
  const token = async (person: Person) => (await issue(person)).id;
  const aProject = (person: Person) => project(person);
  let other: { user: { id: string } };
  beforeAll(async () => {
    other = await w.member();
  });
  const cases: Case[] = [
    ['token.updated', token, (id) => `PATCH /v1/tokens/${id}`, { name: 'renamed' }],
    ['token.disabled', token, (id) => `PATCH /v1/tokens/${id}`, { disabled: true }],
    ['token.rotated', token, (id) => `POST /v1/tokens/${id}/rotate`],
    ['token.revoked', token, (id) => `POST /v1/tokens/${id}/revoke`, { reason: 'policy', comment: 'spring cleaning' }],
    ['token.issued', async () => '', () => 'POST /v1/tokens', { name: 'new' }],
    ['project.created', async () => '', () => 'POST /v1/projects', { name: 'new' }],
    ['project.updated', aProject, (id) => `PATCH /v1/projects/${id}`, { name: 'renamed' }],
    ['project.closed', aProject, (id) => `DELETE /v1/projects/${id}`],
    ['member.added', aProject, (id) => `PUT /v1/projects/${id}/members/${other.user.id}`, { role: 'viewer' }],
    ['session.ended', async () => '', () => 'DELETE /v1/session'],
  ];
  test.each(cases.map(([action, ...rest]) => ({ action, rest })))(
    '$action writes one audit event, and is not made when it cannot be written',
    async ({ action, rest }) => {
      const [prepare, change, body] = rest;
      const person = await w.member();
      const id = await prepare(person);
      const target = change(id);
      const before = await snapshot();
      const refused = await withAuditFailing(action, () => person.call(target, body ? { body } : {}));
      expect(refused.status).toBe(500);
      expect(refused.text).not.toContain('audit insert failed');
      expect(await snapshot()).toEqual(before);
      const done = await person.call<{ id?: string }>(target, body ? { body } : {});
      expect(done.status).toBeLessThan(300);
      const subject = id || done.body.id || undefined;
      const found = (await events({ action, actor: person.user!.id })).filter(
        (event) => !subject || event.tokenId === subject || event.projectId === subject,
      );
      expect(found).toHaveLength(1);
      expect(found[0]).toMatchObject({
        actor: { type: 'user', id: person.user!.id, name: person.user!.name },
        requestId: done.headers.get('x-request-id'),
        ip: expect.stringContaining('127.0.0.1'),
        userAgent: expect.any(String),
      });
    },
  );

  test.each([
    ['user.created', 'POST /v1/users', { email: 'nobody@example.org', name: 'Nobody', role: 'member' }],
    ['user.updated', 'PATCH', { role: 'admin' }],
    ['user.disabled', 'PATCH', { disabled: true }],
  ])('%s writes an audit event, and is not made when it cannot be written', async (action, target, body) => {
    const person = await w.member();
    const path = target === 'PATCH' ? `PATCH /v1/users/${person.user.id}` : target;
    const before = await snapshot();
    expect((await withAuditFailing(action, () => admin.call(path, { body }))).status).toBe(500);
    expect(await snapshot()).toEqual(before);
    expect((await admin.call(path, { body })).status).toBeLessThan(300);
    expect((await events({ action, actor: admin.user!.id })).length).toBeGreaterThan(0);
  });

  const snapshot = () =>
    w.database.query(
      `SELECT (SELECT jsonb_agg(t ORDER BY id) FROM tokens t) AS tokens, (SELECT jsonb_agg(p ORDER BY id) FROM projects p) AS projects,
         (SELECT jsonb_agg(u ORDER BY id) FROM users u) AS users, (SELECT jsonb_agg(m ORDER BY project_id, user_id) FROM members m) AS members,
         (SELECT count(*) FROM sessions) AS sessions, (SELECT count(*) FROM invalidations) AS invalidations`,
    );
});

test('a failed sign-in is recorded without the password that was entered', async () => {
  await w.as().call('POST /v1/session', { body: { email: 'mallory@example.org', password: 'hunter2-hunter2' } });
  const [failed] = await events({ action: 'session.failed' });
  expect(failed).toMatchObject({ actor: { type: 'system' }, details: { email: 'mallory@example.org' } });
});

test('pages of audit events neither repeat nor miss one, and filters apply', async () => {
  const person = await w.member();
  const issued = [];
  for (let i = 0; i < 7; i++) issued.push((await issue(person)).id);
  const seen: string[] = [];
  let cursor: string | null = null;
  do {
    const query: Record<string, string> = {
      actor: person.user.id,
      action: 'token.issued',
      limit: '3',
      ...(cursor && { cursor }),
    };
    const { body } = await admin.call<Page<AuditEvent>>('/v1/audit', { query });
    expect(body.items.length).toBeLessThanOrEqual(3);
    seen.push(...body.items.map((event) => event.tokenId!));
    cursor = body.nextCursor;
    if (seen.length === 3) await issue(person); // sorts before the pages already read: nothing shifts
  } while (cursor);
  expect(seen).toEqual(issued.reverse());
  const at = (await events({ tokenId: issued[0]! }))[0]!.at;
  expect(await events({ tokenId: issued[0]!, from: at })).toHaveLength(1);
  expect(await events({ tokenId: issued[0]!, to: at })).toHaveLength(0);
});

test('an audit export contains every event once, oldest first, in both formats', async () => {
  const person = await w.member('=HYPERLINK("http://evil")');
  for (let i = 0; i < 3; i++) await issue(person, { name: `a, "quoted" \\ näme ${i}` });
  const query = { actor: person.user.id, action: 'token.issued' };
  const ndjson = await admin.call('/v1/audit/export', { query });
  expect(ndjson.headers.get('content-type')).toBe('application/x-ndjson');
  const lines = ndjson.text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as AuditEvent);
  // PostgreSQL writes the export, this service the pages: both must match.
  expect(lines).toEqual((await events(query)).reverse());
  const csv = await admin.call('/v1/audit/export', { query: { ...query, format: 'csv' } });
  const rows = csv.text.trimEnd().split('\r\n');
  expect(rows).toHaveLength(4);
  expect(rows[1]).toContain(`"'=HYPERLINK(""http://evil"")"`);
  expect(rows[1]).toContain('"a, ""quoted"" \\ näme 0"');
});

test('only administrators can read the audit log', async () => {
  const person = await w.member();
  for (const path of ['/v1/audit', '/v1/audit/export', '/v1/audit/verify'])
    expect((await person.call(path)).status).toBe(403);
  const token = await issue(admin, { scopes: ['audit:read'] });
  expect((await w.bearer(token.secret).call('/v1/audit')).status).toBe(200);
});

test('no table contains a secret, its hash as verifiers know it, a password or a cookie', async () => {
  const person = await w.member();
  const issued = await issue(person);
  const rotated = await person.call<{ secret: string }>(`POST /v1/tokens/${issued.id}/rotate`, {
    body: { overlapSeconds: 60 },
  });
  await w.bearer(issued.secret).call('/v1/tokens/self');
  await w.as().call('POST /v1/tokens/revoke-exposed', { body: { tokens: [issued.secret] } });
  const stored = await everythingStored(w.database);
  const { createHash } = await import('node:crypto');
  for (const secret of [
    issued.secret,
    rotated.body.secret,
    ADMIN_PASSWORD,
    'correct horse battery staple',
    person.cookie!.split('=')[1]!,
  ]) {
    const digest = createHash('sha256').update(secret).digest();
    expect(stored).not.toContain(secret);
    expect(stored).not.toContain(digest.toString('base64url'));
    // Of a cookie's 256 random bits the SHA-256 is stored; of passwords and secrets, not even that.
    if (secret !== person.cookie!.split('=')[1]) expect(stored).not.toContain(digest.toString('hex'));
  }
  expect(w.logs()).not.toContain(issued.secret);
});
