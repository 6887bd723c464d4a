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
let carrier: Caller<MaintenanceMethods>;
beforeEach(async () => {
  w = await world();
  carrier = maintenanceCaller({
    address: w.service.rpcAddress,
    authorization: firstParty(JOBS_RPC_SECRET),
    timeoutMs: 10_000,
  });
});
afterEach(async () => {
  carrier.close();
  await w.close();
});

const ask = (email: string) => w.as().call('POST /v1/session/forgot-password', { body: { email } });
const take = async () => {
  const { letters } = await carrier.takeLetters({ limit: 10, keyIds: [JOBS_KEY.id] });
  return letters.map((letter) => ({
    ...letter,
    code: decryptWith(JOBS_KEY, letter.encryptedCode, passwordEmailContext(letter)) ?? '',
  }));
};
const set = (email: string, code: string, newPassword = NEW_PASSWORD) =>
  w.as().call('POST /v1/session/reset-password', { body: { email, code, newPassword } });
const signIn = async (email: string, password: string) =>
  (await w.as().call('POST /v1/session', { body: { email, password } })).status;

test('where nobody sends letters, the door says so to everybody alike', async () => {
  const person = await w.member();
  const options = async () => (await w.as().call('/v1/session/options')).body['forgotPassword'];
  expect(await options()).toBe(false);
  for (const email of [person.user.email, 'nobody@example.org']) expect((await ask(email)).status).toBe(409);
  await take();
  expect(await options()).toBe(true);
  await w.database.query("UPDATE letter_carrier SET seen_at = now() - interval '3 minutes'");
  expect(await options()).toBe(false);
  expect(await take()).toEqual([]);
});

test('a letter carries a code that sets the password once, and is in clear nowhere else', async () => {
  const person = await w.member('Ada');
  const { email } = person.user;
  await take();
  expect((await ask(email.toUpperCase())).status).toBe(202);
  const [letter, ...more] = await take();
  expect(more).toEqual([]);
  expect(letter).toMatchObject({ kind: 'reset', email, name: 'Ada' });
  expect(Date.parse(letter!.expiresAt) - Date.now()).toBeGreaterThan(3_500_000);
  expect(Date.parse(letter!.expiresAt) - Date.now()).toBeLessThan(3_601_000);
  expect(await everythingStored(w.database)).not.toContain(letter!.code);
  expect(w.logs()).not.toContain(letter!.code);
  expect(await carrier.finishLetter({ id: letter!.id })).toEqual({ known: true });
  expect(await carrier.finishLetter({ id: letter!.id })).toEqual({ known: false });

  expect((await set(email, 'A'.repeat(32))).status).toBe(401);
  expect((await set(email, letter!.code)).status).toBe(204);
  expect((await person.call('/v1/session')).status).toBe(401);
  expect([await signIn(email, PASSWORD), await signIn(email, NEW_PASSWORD)]).toEqual([401, 200]);
  expect((await set(email, letter!.code, PASSWORD)).status).toBe(401);
  const { body } = await (await w.signIn()).call<{ items: AuditEvent[] }>('/v1/audit', {
    query: { action: 'user.updated' },
  });
  expect(body.items.map(({ details }) => details)).toEqual([
    { password: 'set with a code' },
    { password: 'reset begun', by: 'e-mail', caller: 'jobs' },
  ]);
});

test('the answer is the same whether the person exists, is disabled, or does not', async () => {
  const [person, gone] = [await w.member(), await w.member()];
  await (await w.signIn()).call(`PATCH /v1/users/${gone.user.id}`, { body: { disabled: true } });
  await take();
  const answers = [];
  for (const email of [person.user.email, gone.user.email, 'nobody@example.org']) {
    const { status, text, headers } = await ask(email);
    const told = [...headers].filter(([name]) => !['date', 'x-request-id'].includes(name));
    answers.push(JSON.stringify({ status, text, told }));
  }
  expect(new Set(answers).size).toBe(1);
  expect((await take()).map(({ email }) => email)).toEqual([person.user.email]);
});

test('asking again voids no letter, floods no mailbox, and is limited', async () => {
  const { email } = (await w.member()).user;
  await take();
  const codes: string[] = [];
  for (let i = 0; i < 5; i++) {
    expect((await ask(email)).status).toBe(202);
    for (const { id, code } of await take()) {
      codes.push(code);
      await carrier.finishLetter({ id });
    }
  }
  expect(codes).toHaveLength(5);
  expect((await ask(email)).status).toBe(429);
  const elsewhere = w.as({
    [GATEWAY_PROOF_HEADER]: gatewayProof(GATEWAY_PROOF_SECRET),
    [CALLER_ADDRESS_HEADER]: '203.0.113.1',
  });
  expect((await elsewhere.call('POST /v1/session/forgot-password', { body: { email } })).status).toBe(202);
  expect(await take()).toEqual([]);
  expect((await set(email, codes[0]!)).status).toBe(204);
  for (const code of codes) expect((await set(email, code, PASSWORD)).status).toBe(401);
});

test('a letter of which nothing is heard is sent again, with another code', async () => {
  const { email } = (await w.member()).user;
  await take();
  await ask(email);
  const [first] = await take();
  expect(await take()).toEqual([]);
  await w.database.query('UPDATE letters SET next_at = now()');
  const [second] = await take();
  expect(second).toMatchObject({ id: first!.id, email });
  expect(second!.code).not.toBe(first!.code);
  expect((await set(email, first!.code)).status).toBe(204);
});

test('somebody added without a password is invited, and chooses one', async () => {
  const admin = await w.signIn();
  const add = async (name: string, more: object) =>
    (
      await admin.call<User>('POST /v1/users', {
        body: { email: `${name}@example.org`, name, role: 'member', ...more },
      })
    ).body;
  const invited = await add('ada', {});
  await add('grace', { password: PASSWORD });
  const letters = await take();
  expect(letters).toMatchObject([{ kind: 'invitation', email: invited.email, name: 'ada' }]);
  expect(Date.parse(letters[0]!.expiresAt) - Date.now()).toBeGreaterThan(2 * 86_400_000);
  expect((await set(invited.email, letters[0]!.code)).status).toBe(204);
  expect(await signIn(invited.email, NEW_PASSWORD)).toBe(200);
});

test('letters are handed to jobs alone', async () => {
  const verifying = await issue(await w.signIn(), { scopes: ['tokens:verify'] });
  const stranger = maintenanceCaller({ address: w.service.rpcAddress, authorization: bearer(verifying.secret) });
  try {
    await expect(stranger.takeLetters({ limit: 1, keyIds: [JOBS_KEY.id] })).rejects.toMatchObject({
      code: status.PERMISSION_DENIED,
    });
    await expect(carrier.finishLetter({ id: 'x' })).rejects.toMatchObject({ code: status.INVALID_ARGUMENT });
  } finally {
    stranger.close();
  }
});

test('failed sign-ins are written down one by one only so often', async () => {
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
