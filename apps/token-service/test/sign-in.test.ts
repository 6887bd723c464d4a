import { hash, randomBytes } from 'node:crypto';
import type { AuditEvent, OwnSession, User } from '@latchkey/contracts';
import { Secret, TOTP } from 'otpauth';
import { everythingStored, issue, type Person, type World, world } from './harness.js';

const PASSWORD = 'correct horse battery staple';
const NEW_PASSWORD = 'another battery staple horse';
let w: World;
beforeAll(async () => {
  w = await world();
});
afterAll(() => w.close());

const signIn = (email: string, password: string, code?: string) =>
  w.as().call<{ user: User; code: string }>('POST /v1/session', { body: { email, password, ...(code && { code }) } });
const isSignedIn = async (person: Person) => (await person.call('GET /v1/session')).status === 200;
const codeNow = (secret: Secret, stepsAhead = 0) =>
  TOTP.generate({ secret, timestamp: Date.now() + stepsAhead * 30_000 });
const actionsAbout = async (admin: Person, userId: string) => {
  const { body } = await admin.call<{ items: AuditEvent[] }>('/v1/audit?limit=100');
  return body.items.filter((event) => event.subject?.id === userId).map((event) => [event.action, event.details]);
};

it('an email address that the database cannot store is rejected by name', async () => {
  for (const email of ['\ud800', 'a\u0000b@example.org', 'a\nb']) {
    const { status, body } = await signIn(email, PASSWORD);
    expect([status, body]).toMatchObject([400, { errors: [{ field: 'email' }] }]);
  }
});

describe('sign-ins', () => {
  it('sessions are listed, and ended one by one or all at once', async () => {
    const person = await w.member();
    const second = await w.signIn(person.user.email, PASSWORD);
    const third = await w.signIn(person.user.email, PASSWORD);
    const list = async () => (await second.call<{ items: OwnSession[] }>('/v1/sessions')).body.items;
    expect((await list()).map(({ current }) => current)).toEqual([false, true, false]);
    const [latest] = await list();
    expect((await second.call(`DELETE /v1/sessions/${latest!.id}`)).status).toBe(204);
    expect(await isSignedIn(third)).toBe(false);
    expect(await isSignedIn(person)).toBe(true);
    expect((await second.call(`DELETE /v1/sessions/${latest!.id}`)).status).toBe(404);
    expect((await second.call('DELETE /v1/sessions')).status).toBe(204);
    expect([await isSignedIn(person), await isSignedIn(second)]).toEqual([false, false]);
  });

  it("a person cannot end another person's session", async () => {
    const [one, other] = [await w.member(), await w.member()];
    const [own] = (await one.call<{ items: OwnSession[] }>('/v1/sessions')).body.items;
    expect((await other.call(`DELETE /v1/sessions/${own!.id}`)).status).toBe(404);
    expect(await isSignedIn(one)).toBe(true);
  });
});

describe('passwords', () => {
  it('changing a password requires the old one, and ends every other session', async () => {
    const person = await w.member();
    const elsewhere = await w.signIn(person.user.email, PASSWORD);
    const change = (currentPassword: string) =>
      person.call('POST /v1/session/password', { body: { currentPassword, newPassword: NEW_PASSWORD } });
    expect((await change('not the password')).body).toMatchObject({ code: 'sign_in_failed' });
    expect((await change(PASSWORD)).status).toBe(204);
    expect([await isSignedIn(person), await isSignedIn(elsewhere)]).toEqual([true, false]);
    expect((await signIn(person.user.email, PASSWORD)).status).toBe(401);
    expect((await signIn(person.user.email, NEW_PASSWORD)).status).toBe(200);
  });

  it('with a session cookie a password can be guessed at most ten times', async () => {
    const person = await w.member();
    const body = { currentPassword: 'a guess', newPassword: NEW_PASSWORD };
    const statuses = [];
    for (let i = 0; i < 11; i++) statuses.push((await person.call('POST /v1/session/password', { body })).status);
    expect(statuses).toEqual([...Array(10).fill(401), 429]);
  });

  it('a password is reset once with a code that only an administrator can create', async () => {
    const [admin, person, other] = [await w.signIn(), await w.member(), await w.member()];
    const path = `POST /v1/users/${person.user.id}/reset-password`;
    expect((await other.call(path)).status).toBe(403);
    const token = await issue(admin, { scopes: ['users:write', 'users:read'] });
    expect((await w.bearer(token.secret).call(path)).status).toBe(403);
    const { body: first } = await admin.call<{ code: string }>(path);
    const { body: second } = await admin.call<{ code: string }>(path);
    const set = (code: string, email = person.user.email) =>
      w.as().call('POST /v1/session/reset-password', { body: { email, code, newPassword: NEW_PASSWORD } });
    expect((await set(first.code)).body).toMatchObject({ code: 'sign_in_failed' });
    expect((await set(second.code, other.user.email)).status).toBe(401);
    expect((await set(second.code)).status).toBe(204);
    expect(await isSignedIn(person)).toBe(false);
    expect((await signIn(person.user.email, NEW_PASSWORD)).status).toBe(200);
    expect((await set(second.code)).status).toBe(401);
    const events = await actionsAbout(admin, person.user.id);
    expect(events).toContainEqual(['user.updated', { password: 'reset begun' }]);
    expect(events).toContainEqual(['user.updated', { password: 'set with a code' }]);
    expect(w.logs()).not.toContain(second.code);
  });

  it('a password is not reset with an expired code, nor for a disabled person', async () => {
    const [admin, person] = [await w.signIn(), await w.member()];
    const path = `POST /v1/users/${person.user.id}/reset-password`;
    const set = (code: string) =>
      w.as().call('POST /v1/session/reset-password', {
        body: { email: person.user.email, code, newPassword: NEW_PASSWORD },
      });
    const { body } = await admin.call<{ code: string }>(path);
    await w.database.query('UPDATE password_resets SET expires_at = now() WHERE user_id = $1', [person.user.id]);
    expect((await set(body.code)).status).toBe(401);
    const again = await admin.call<{ code: string }>(path);
    await admin.call(`PATCH /v1/users/${person.user.id}`, { body: { disabled: true } });
    expect((await set(again.body.code)).status).toBe(401);
  });
});

describe('second factors', () => {
  async function withFactor() {
    const person = await w.member();
    const elsewhere = await w.signIn(person.user.email, PASSWORD);
    const started = await person.call<{ secret: string; uri: string }>('POST /v1/session/totp', {
      body: { password: PASSWORD },
    });
    const secret = Secret.fromBase32(started.body.secret);
    return { person, elsewhere, secret, started };
  }

  it('a confirmed second factor is required after the password, and each code is accepted once', async () => {
    const { person, elsewhere, secret } = await withFactor();
    const { email } = person.user;
    expect((await signIn(email, PASSWORD)).status).toBe(200);
    expect((await person.call('POST /v1/session/totp/confirm', { body: { code: '000000' } })).status).toBe(401);
    const code = codeNow(secret);
    expect((await person.call('POST /v1/session/totp/confirm', { body: { code } })).status).toBe(200);
    expect((await person.call('/v1/session/totp')).body).toEqual({ enabled: true, recoveryCodesLeft: 10 });
    expect([await isSignedIn(person), await isSignedIn(elsewhere)]).toEqual([true, false]);
    expect((await signIn(email, PASSWORD)).body).toMatchObject({ code: 'second_factor_required' });
    expect((await signIn(email, PASSWORD, code)).body).toMatchObject({ code: 'sign_in_failed' });
    expect((await signIn(email, 'not the password', codeNow(secret, 1))).body).toMatchObject({
      code: 'sign_in_failed',
    });
    expect((await signIn(email, PASSWORD, codeNow(secret, 1))).status).toBe(200);
  });

  it('a second factor can be guessed at most ten times', async () => {
    const { person, secret } = await withFactor();
    await person.call('POST /v1/session/totp/confirm', { body: { code: codeNow(secret) } });
    // Other addresses do not help: each attempt clears the count of the address alone.
    await w.database.query('DELETE FROM sign_in_failures');
    const statuses = [];
    for (let i = 0; i < 11; i++) {
      statuses.push((await signIn(person.user.email, PASSWORD, '000000')).status);
      await signIn(person.user.email, PASSWORD);
    }
    expect(statuses).toEqual([...Array(10).fill(401), 429]);
    expect((await signIn(person.user.email, PASSWORD, codeNow(secret, 1))).status).toBe(429);
  });

  it('starting and removing a second factor requires the password; administrators can reset it', async () => {
    const { person, secret } = await withFactor();
    const begin = (password: string) => person.call('POST /v1/session/totp', { body: { password } });
    const remove = (password: string, code: string) =>
      person.call('POST /v1/session/totp/remove', { body: { password, code } });
    expect((await begin('not the password')).status).toBe(401);
    expect((await remove(PASSWORD, codeNow(secret))).status).toBe(409);
    await person.call('POST /v1/session/totp/confirm', { body: { code: codeNow(secret) } });
    expect((await begin(PASSWORD)).status).toBe(409);
    expect((await remove(PASSWORD, '000000')).status).toBe(401);
    expect((await remove('not the password', codeNow(secret, 1))).status).toBe(401);
    expect((await remove(PASSWORD, codeNow(secret, 1))).status).toBe(204);
    expect((await signIn(person.user.email, PASSWORD)).status).toBe(200);

    const [admin, lost] = [await w.signIn(), await withFactor()];
    await lost.person.call('POST /v1/session/totp/confirm', { body: { code: codeNow(lost.secret) } });
    const path = `DELETE /v1/users/${lost.person.user.id}/totp`;
    expect((await person.call(path)).status).toBe(403);
    expect((await admin.call(path)).status).toBe(204);
    expect((await signIn(lost.person.user.email, PASSWORD)).status).toBe(200);
    expect(await actionsAbout(admin, lost.person.user.id)).toContainEqual(['user.updated', { secondFactor: 'reset' }]);
  });

  it('a password reset with a code requires the second factor, which stays in force', async () => {
    const { person, secret } = await withFactor();
    const { email, id } = person.user;
    const confirmed = await person.call<{ recoveryCodes: string[] }>('POST /v1/session/totp/confirm', {
      body: { code: codeNow(secret) },
    });
    const admin = await w.signIn();
    // For an administrator too, whose account is worth the most.
    await admin.call(`PATCH /v1/users/${id}`, { body: { role: 'administrator' } });
    const code = async () => (await admin.call<{ code: string }>(`POST /v1/users/${id}/reset-password`)).body.code;
    const set = (by: string, secondFactor?: string) =>
      w.as().call('POST /v1/session/reset-password', {
        body: { email, code: by, newPassword: NEW_PASSWORD, ...(secondFactor && { secondFactor }) },
      });
    const first = await code();
    for (let i = 0; i < 12; i++) expect((await set(first)).body).toMatchObject({ code: 'second_factor_required' });
    expect((await set(first, '000000')).body).toMatchObject({ code: 'sign_in_failed' });
    // With a wrong code of the email, a second factor is neither used up nor checked.
    expect((await set('A'.repeat(32), codeNow(secret, 1))).body).toMatchObject({ code: 'sign_in_failed' });
    expect((await signIn(email, NEW_PASSWORD, codeNow(secret, 1))).status).toBe(401);
    expect(await isSignedIn(person)).toBe(true);
    expect((await set(first, codeNow(secret, 1))).status).toBe(204);
    expect(await isSignedIn(person)).toBe(false);
    expect((await signIn(email, NEW_PASSWORD)).body).toMatchObject({ code: 'second_factor_required' });

    expect((await set(await code(), confirmed.body.recoveryCodes[0])).status).toBe(204);
    expect((await signIn(email, NEW_PASSWORD, confirmed.body.recoveryCodes[0])).status).toBe(401);
    expect((await signIn(email, NEW_PASSWORD, confirmed.body.recoveryCodes[1])).status).toBe(200);
  });

  it('a second factor can be guessed at most ten times with a code for a password reset', async () => {
    const { person, secret } = await withFactor();
    const { email, id } = person.user;
    await person.call('POST /v1/session/totp/confirm', { body: { code: codeNow(secret) } });
    const { body } = await (await w.signIn()).call<{ code: string }>(`POST /v1/users/${id}/reset-password`);
    const set = (secondFactor: string) =>
      w.as().call('POST /v1/session/reset-password', {
        body: { email, code: body.code, newPassword: NEW_PASSWORD, secondFactor },
      });
    const statuses = [];
    for (let i = 0; i < 11; i++) {
      // Other addresses do not help.
      await w.database.query('DELETE FROM sign_in_failures WHERE subject <> $1', [
        hash('sha256', `code ${id}`, 'buffer'),
      ]);
      statuses.push((await set('000000')).status);
    }
    expect(statuses).toEqual([...Array(10).fill(401), 429]);
    expect((await set(codeNow(secret, 1))).status).toBe(429);
  });

  it('a second factor has ten recovery codes, each valid once in place of a code of the app', async () => {
    const { person, secret } = await withFactor();
    const { email } = person.user;
    expect((await person.call('/v1/session/totp')).body).toEqual({ enabled: false, recoveryCodesLeft: 0 });
    const confirmed = await person.call<{ recoveryCodes: string[] }>('POST /v1/session/totp/confirm', {
      body: { code: codeNow(secret) },
    });
    const codes = confirmed.body.recoveryCodes;
    expect(new Set(codes).size).toBe(10);
    for (const code of codes) expect(code).toMatch(/^[A-Z2-7]{4}(-[A-Z2-7]{4}){3}$/);
    expect((await signIn(email, PASSWORD, codes[0])).status).toBe(200);
    expect((await signIn(email, PASSWORD, codes[0])).body).toMatchObject({ code: 'sign_in_failed' });
    expect((await signIn(email, PASSWORD, codes[1]!.replaceAll('-', '').toLowerCase())).status).toBe(200);
    expect((await signIn(email, 'not the password', codes[2])).status).toBe(401);
    expect((await person.call('/v1/session/totp')).body).toEqual({ enabled: true, recoveryCodesLeft: 8 });
    expect(await actionsAbout(await w.signIn(), person.user.id)).toContainEqual([
      'user.updated',
      { secondFactor: 'recovery code used', recoveryCodesLeft: 8 },
    ]);

    const path = 'POST /v1/session/totp/recovery-codes';
    expect((await person.call(path, { body: { password: 'not it', code: codes[3] } })).status).toBe(401);
    const again = await person.call<{ recoveryCodes: string[] }>(path, {
      body: { password: PASSWORD, code: codeNow(secret, 1) },
    });
    expect(again.body.recoveryCodes).toHaveLength(10);
    expect((await signIn(email, PASSWORD, codes[4])).status).toBe(401);
    const stored = await everythingStored(w.database);
    for (const code of again.body.recoveryCodes) {
      expect(stored).not.toContain(code);
      expect(w.logs()).not.toContain(code);
    }
    const remove = { password: PASSWORD, code: again.body.recoveryCodes[0] };
    expect((await person.call('POST /v1/session/totp/remove', { body: remove })).status).toBe(204);
    expect((await person.call('/v1/session/totp')).body).toEqual({ enabled: false, recoveryCodesLeft: 0 });
    expect((await signIn(email, PASSWORD)).status).toBe(200);
  });

  it("a person's recovery codes are not accepted for another person", async () => {
    const [one, other] = [await withFactor(), await withFactor()];
    const confirm = async ({ person, secret }: typeof one) =>
      (
        await person.call<{ recoveryCodes: string[] }>('POST /v1/session/totp/confirm', {
          body: { code: codeNow(secret) },
        })
      ).body.recoveryCodes;
    const [codes] = [await confirm(one), await confirm(other)];
    expect((await signIn(other.person.user.email, PASSWORD, codes[0])).status).toBe(401);
    expect((await signIn(one.person.user.email, PASSWORD, codes[0])).status).toBe(200);
  });

  it('second factors are stored encrypted', async () => {
    const { secret, started } = await withFactor();
    const stored = await w.database.query<{ text: string }>('SELECT t::text AS text FROM second_factors t');
    const all = stored.map(({ text }) => text).join();
    expect(all).not.toContain(secret.hex.toLowerCase());
    expect(w.logs()).not.toContain(started.body.secret);
  });
});

it('tokens are rejected, whatever their scopes, by every call that requires a person', async () => {
  const admin = await w.signIn();
  const { body: scopes } = await admin.call<{ items: { name: string }[] }>('/v1/scopes');
  const token = await issue(admin, { scopes: scopes.items.map(({ name }) => name) });
  const bearer = { ...w.bearer(token.secret) };
  for (const target of [
    'GET /v1/sessions',
    'DELETE /v1/sessions',
    `DELETE /v1/sessions/${token.id}`,
    'POST /v1/session/password',
    'GET /v1/session/totp',
    'POST /v1/session/totp',
    'POST /v1/session/totp/confirm',
    'POST /v1/session/totp/remove',
    'POST /v1/session/totp/recovery-codes',
    `POST /v1/users/${admin.user!.id}/reset-password`,
    `DELETE /v1/users/${admin.user!.id}/totp`,
    'PUT /v1/policy',
  ]) {
    const { status, body } = await bearer.call(target, target.startsWith('GET') ? {} : { body: {} });
    expect({ target, status, code: body['code'] }).toEqual({ target, status: 403, code: 'forbidden' });
  }
});

it('the service serves its OpenAPI document, and a page that needs no script', async () => {
  const document = await w.as().call<{ openapi: string; paths: object }>('/v1/openapi.json');
  expect(document.body.openapi).toBe('3.1.1');
  expect(Object.keys(document.body.paths)).toContain('/v1/tokens/{id}/revoke');
  const page = await w.as().call('/v1/docs');
  expect(page.status).toBe(200);
  expect(page.headers.get('content-type')).toContain('text/html');
  expect(page.headers.get('content-security-policy')).toMatch(/^default-src 'none'; style-src 'sha256-/);
  expect(page.text).toContain('/v1/tokens/{id}/revoke');
});

test('a password changed during a sign-in with it opens no session', async () => {
  const email = `${randomBytes(6).toString('hex')}@example.org`;
  const password = 'correct horse battery staple';
  const admin = await w.signIn();
  const { body: user } = await admin.call<{ id: string }>('POST /v1/users', {
    body: { email, name: 'Somebody', role: 'member', password },
  });
  // More than are checked at one time: the last have read the old password when it changes.
  const signIns = Array.from({ length: 9 }, () => w.as().call('POST /v1/session', { body: { email, password } }));
  await Promise.race(signIns);
  // As the service does: the deletion sees sessions committed while it waited for the person's row.
  await w.database.query(
    `BEGIN; UPDATE users SET password_hash = 'another' WHERE id = '${user.id}';
     DELETE FROM sessions WHERE user_id = '${user.id}'; COMMIT`,
  );
  const statuses = (await Promise.all(signIns)).map(({ status }) => status);
  expect(statuses).toContain(401);
  expect(await w.database.query('SELECT id FROM sessions WHERE user_id = $1', [user.id])).toEqual([]);
});
