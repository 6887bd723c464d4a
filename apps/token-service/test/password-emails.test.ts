import { status } from '@grpc/grpc-js';
import {
  type AuditEvent,
  CALLER_ADDRESS_HEADER,
  GATEWAY_PROOF_HEADER,
  gatewayProof,
  type MaintenanceMethods,
  passwordEmailContext,
  type User,
} from '@latchkey/contracts';
import { bearer, type Caller, decryptWith, firstParty, maintenanceCaller } from '@latchkey/runtime';
import {
  everythingStored,
  GATEWAY_PROOF_SECRET,
  issue,
  JOBS_KEY,
  JOBS_RPC_SECRET,
  type World,
  world,
} from './harness.js';

const PASSWORD = 'correct horse battery staple';
const NEW_PASSWORD = 'another battery staple horse';
let w: World;
let mailer: Caller<MaintenanceMethods>;
beforeEach(async () => {
  w = await world();
  mailer = maintenanceCaller({
    address: w.service.rpcAddress,
    authorization: firstParty(JOBS_RPC_SECRET),
    timeoutMs: 10_000,
  });
});
afterEach(async () => {
  mailer.close();
  await w.close();
});

const request = (email: string) => w.as().call('POST /v1/session/forgot-password', { body: { email } });
const take = async () => {
  const { letters } = await mailer.takeLetters({ limit: 10, keyIds: [JOBS_KEY.id] });
  return letters.map((email) => ({
    ...email,
    code: decryptWith(JOBS_KEY, email.encryptedCode, passwordEmailContext(email)) ?? '',
  }));
};
const set = (email: string, code: string, newPassword = NEW_PASSWORD) =>
  w.as().call('POST /v1/session/reset-password', { body: { email, code, newPassword } });
const signIn = async (email: string, password: string) =>
  (await w.as().call('POST /v1/session', { body: { email, password } })).status;

test('where no mailer runs, password reset returns the same error for every address', async () => {
  const person = await w.member();
  const options = async () => (await w.as().call('/v1/session/options')).body['forgotPassword'];
  expect(await options()).toBe(false);
  for (const email of [person.user.email, 'nobody@example.org']) expect((await request(email)).status).toBe(409);
  await take();
  expect(await options()).toBe(true);
  await w.database.query("UPDATE letter_carrier SET seen_at = now() - interval '3 minutes'");
  expect(await options()).toBe(false);
  expect(await take()).toEqual([]);
});

test('a password email has a code that sets the password once, and is in clear nowhere else', async () => {
  const person = await w.member('Ada');
  const { email } = person.user;
  await take();
  expect((await request(email.toUpperCase())).status).toBe(202);
  const [sent, ...more] = await take();
  expect(more).toEqual([]);
  expect(sent).toMatchObject({ kind: 'reset', email, name: 'Ada' });
  expect(Date.parse(sent!.expiresAt) - Date.now()).toBeGreaterThan(3_500_000);
  expect(Date.parse(sent!.expiresAt) - Date.now()).toBeLessThan(3_601_000);
  expect(await everythingStored(w.database)).not.toContain(sent!.code);
  expect(w.logs()).not.toContain(sent!.code);
  expect(await mailer.finishLetter({ id: sent!.id })).toEqual({ known: true });
  expect(await mailer.finishLetter({ id: sent!.id })).toEqual({ known: false });

  expect((await set(email, 'A'.repeat(32))).status).toBe(401);
  expect((await set(email, sent!.code)).status).toBe(204);
  expect((await person.call('/v1/session')).status).toBe(401);
  expect([await signIn(email, PASSWORD), await signIn(email, NEW_PASSWORD)]).toEqual([401, 200]);
  expect((await set(email, sent!.code, PASSWORD)).status).toBe(401);
  const { body } = await (await w.signIn()).call<{ items: AuditEvent[] }>('/v1/audit', {
    query: { action: 'user.updated' },
  });
  expect(body.items.map(({ details }) => details)).toEqual([
    { password: 'set with a code' },
    { password: 'reset begun', by: 'e-mail', caller: 'jobs' },
  ]);
});

test('a password reset request returns the same whether the person exists, is disabled, or does not exist', async () => {
  const [person, disabled] = [await w.member(), await w.member()];
  await (await w.signIn()).call(`PATCH /v1/users/${disabled.user.id}`, { body: { disabled: true } });
  await take();
  const responses = [];
  for (const email of [person.user.email, disabled.user.email, 'nobody@example.org']) {
    const { status, text, headers } = await request(email);
    const visible = [...headers].filter(([name]) => !['date', 'x-request-id'].includes(name));
    responses.push(JSON.stringify({ status, text, visible }));
  }
  expect(new Set(responses).size).toBe(1);
  expect((await take()).map(({ email }) => email)).toEqual([person.user.email]);
});

test('repeated reset requests keep earlier codes valid, flood no mailbox, and are rate limited', async () => {
  const { email } = (await w.member()).user;
  await take();
  const codes: string[] = [];
  let status = 202;
  // Five at one time; on a slow machine the limit allows another one meanwhile.
  while (status === 202 && codes.length <= 10) {
    ({ status } = await request(email));
    for (const { id, code } of await take()) {
      codes.push(code);
      await mailer.finishLetter({ id });
    }
  }
  expect(status).toBe(429);
  expect(codes.length).toBeGreaterThanOrEqual(5);
  const elsewhere = w.as({
    [GATEWAY_PROOF_HEADER]: gatewayProof(GATEWAY_PROOF_SECRET),
    [CALLER_ADDRESS_HEADER]: '203.0.113.1',
  });
  expect((await elsewhere.call('POST /v1/session/forgot-password', { body: { email } })).status).toBe(202);
  expect(await take()).toEqual([]);
  expect((await set(email, codes[0]!)).status).toBe(204);
  for (const code of codes) expect((await set(email, code, PASSWORD)).status).toBe(401);
});

test('a password email that is not reported as sent is sent again, with another code', async () => {
  const { email } = (await w.member()).user;
  await take();
  await request(email);
  const [first] = await take();
  expect(await take()).toEqual([]);
  await w.database.query('UPDATE letters SET next_at = now()');
  const [second] = await take();
  expect(second).toMatchObject({ id: first!.id, email });
  expect(second!.code).not.toBe(first!.code);
  expect((await set(email, first!.code)).status).toBe(204);
});

test('a person created without a password is invited by email, and sets one', async () => {
  const admin = await w.signIn();
  const add = async (name: string, more: object) =>
    (
      await admin.call<User>('POST /v1/users', {
        body: { email: `${name}@example.org`, name, role: 'member', ...more },
      })
    ).body;
  const invited = await add('ada', {});
  await add('grace', { password: PASSWORD });
  const sent = await take();
  expect(sent).toMatchObject([{ kind: 'invitation', email: invited.email, name: 'ada' }]);
  expect(Date.parse(sent[0]!.expiresAt) - Date.now()).toBeGreaterThan(2 * 86_400_000);
  expect((await set(invited.email, sent[0]!.code)).status).toBe(204);
  expect(await signIn(invited.email, NEW_PASSWORD)).toBe(200);
});

test('password emails are given to jobs alone', async () => {
  const verifying = await issue(await w.signIn(), { scopes: ['tokens:verify'] });
  const stranger = maintenanceCaller({ address: w.service.rpcAddress, authorization: bearer(verifying.secret) });
  try {
    await expect(stranger.takeLetters({ limit: 1, keyIds: [JOBS_KEY.id] })).rejects.toMatchObject({
      code: status.PERMISSION_DENIED,
    });
    await expect(mailer.finishLetter({ id: 'x' })).rejects.toMatchObject({ code: status.INVALID_ARGUMENT });
  } finally {
    stranger.close();
  }
});

test('failed sign-ins are audited one by one only up to a limit', async () => {
  const admin = await w.signIn();
  for (let i = 0; i < 55; i++) expect(await signIn(`guess${i}@example.org`, 'not a password')).toBe(401);
  const { body } = await admin.call<{ items: AuditEvent[] }>('/v1/audit', {
    query: { action: 'session.failed', limit: '100' },
  });
  expect(body.items).toHaveLength(50);
  expect(body.items[0]!.details).toMatchObject({
    email: 'guess49@example.org',
    more: expect.stringContaining('left out'),
  });
}, 120_000);
