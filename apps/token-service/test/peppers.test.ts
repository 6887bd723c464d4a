import { createHmac, hash } from 'node:crypto';
import { status } from '@grpc/grpc-js';
import type { SystemState } from '@latchkey/contracts';
import { ConfigError, firstParty, tokensCaller } from '@latchkey/runtime';
import { waitFor } from '@latchkey/testing';
import { mint, startOf } from '@latchkey/token-format';
import { Secret, TOTP } from 'otpauth';
import type { TokenService } from '../src/app.js';
import { fingerprintOf } from '../src/verification/peppers.service.js';
import { GATEWAY_RPC_SECRET, issue, type Person, type World, world } from './harness.js';

const OLD = 'pepper-for-tests-0123456789abcdef0123';
const NEW = 'a-newer-pepper-0123456789abcdef0123456';
const PASSWORD = 'correct horse battery staple';
const ids = { [OLD]: fingerprintOf(OLD).toString('hex'), [NEW]: fingerprintOf(NEW).toString('hex') };
/** Past every wait for other replicas. */
const AGED = `first_used_at = first_used_at - interval '1 minute', current_at = current_at - interval '1 minute', lacked_at = NULL`;

let w: World;
let admin: Person;
const closing: (() => void)[] = [];
beforeEach(async () => {
  w = await world({ env: { TOKEN_PEPPERS: OLD } });
  admin = await w.signIn();
});
afterEach(async () => {
  for (const close of closing.splice(0)) close();
  await w.close();
});

const at = (service: TokenService) => w.as({ cookie: admin.cookie! }, service);
const use = (secret: string, service: TokenService) => w.bearer(secret, service).call('/v1/tokens/self');
const unknown = () => mint('pat');
const entryOf = (secret: string) => ({
  sha256: hash('sha256', secret, 'hex'),
  start: startOf(secret),
  name: 'imported',
});
const rowOf = async (id: string) =>
  (
    await w.database.query<{ fingerprint: string | null; hash: string }>(
      `SELECT encode(p.fingerprint, 'hex') AS fingerprint, encode(t.hash, 'hex') AS hash
       FROM tokens t LEFT JOIN peppers p ON p.id = t.pepper_id WHERE t.id = $1`,
      [id],
    )
  )[0]!;
const age = () => w.database.query(`UPDATE peppers SET ${AGED}`);
const peppersAt = async (service: TokenService) => (await at(service).call<SystemState>('GET /v1/system')).body.peppers;
const problemOf = (starting: Promise<unknown>): Promise<string> =>
  starting.then(
    () => Promise.reject(new Error('it started')),
    (error: Error) => {
      expect(error).toBeInstanceOf(ConfigError);
      return error.message;
    },
  );

/** A person with a second factor, of which the peppers are those of the first service. */
async function withFactor() {
  const person = await w.member();
  const { body } = await person.call<{ uri: string }>('POST /v1/session/totp', { body: { password: PASSWORD } });
  const secret = Secret.fromBase32(new URL(body.uri).searchParams.get('secret')!);
  const code = (steps = 0) => new TOTP({ secret }).generate({ timestamp: Date.now() + steps * 30_000 });
  const confirmed = await person.call<{ recoveryCodes: string[] }>('POST /v1/session/totp/confirm', {
    body: { code: code() },
  });
  const signIn = (service: TokenService, withCode: string) =>
    w.as({}, service).call('POST /v1/session', {
      body: { email: person.user.email, password: PASSWORD, code: withCode },
    });
  return { person, code, recoveryCodes: confirmed.body.recoveryCodes, signIn };
}

test('a token-service without the peppers of its database does not start, and names them and what depends on them', async () => {
  const tokens = [await issue(admin), await issue(admin)];
  await issue(admin, { expiresInSeconds: 3600 }).then(({ id }) => admin.call(`DELETE /v1/tokens/${id}`));
  await withFactor();
  await w.service.stop();
  const problem = await problemOf(w.another({ TOKEN_PEPPERS: NEW }));
  expect(problem).toContain('TOKEN_PEPPERS lacks the pepper');
  expect(problem).toContain(ids[OLD]);
  expect(problem).toMatch(/in use since 2\d{3}-/);
  expect(problem).toContain('tokens: 2, second factors: 1, people with recovery codes: 1');
  expect(problem).toContain(`TOKEN_PEPPERS_GIVEN_UP=${ids[OLD]}`);
  for (const pepper of [OLD, NEW]) expect(problem + w.logs()).not.toContain(pepper);
  // Nothing of the wrong start remains: with the right secrets it starts, and knows no other pepper.
  const right = await w.another();
  for (const { secret } of tokens) expect((await use(secret, right)).status).toBe(200);
  expect((await peppersAt(right)).map(({ id }) => id)).toEqual([ids[OLD]]);
});

test('tokens of before peppers were recorded depend on those of the first start', async () => {
  const { secret, id } = await issue(admin);
  await w.service.stop();
  await w.database.query('DELETE FROM peppers');
  await w.database.query('UPDATE tokens SET pepper_id = NULL');
  const both = await w.another({ TOKEN_PEPPERS: `${NEW},${OLD}` });
  expect((await use(secret, both)).status).toBe(200);
  await both.stop();
  expect(await problemOf(w.another({ TOKEN_PEPPERS: NEW }))).toContain('tokens: 1,');
  expect(await problemOf(w.another({ TOKEN_PEPPERS: OLD }))).toContain('tokens: 1,');
  const again = await w.another({ TOKEN_PEPPERS: `${NEW},${OLD}` });
  await age();
  await waitFor(async () => (await use(secret, again)) && (await rowOf(id)).fingerprint === ids[NEW]);
  await again.stop();
  await age();
  expect((await use(secret, await w.another({ TOKEN_PEPPERS: NEW }))).status).toBe(200);
});

test('a pepper rotated in the right order is never missed: every token works at every replica, at each step', async () => {
  const issued = [await issue(admin)];
  let replicas = [w.service, await w.another()];
  for (const peppers of [`${OLD},${NEW}`, `${NEW},${OLD}`])
    for (const i of [0, 1]) {
      await replicas[i]!.stop();
      replicas = replicas.with(i, await w.another({ TOKEN_PEPPERS: peppers }));
      for (const replica of replicas) issued.push(await issue(at(replica)));
      for (const replica of replicas) {
        for (const { secret } of issued) expect((await use(secret, replica)).status).toBe(200);
        expect((await use(unknown(), replica)).status).toBe(401);
      }
    }
});

test('a replica that lacks a pepper in use returns 503, never 401, for what it does not find, and logs which it lacks', async () => {
  const old = await issue(admin);
  const factor = await withFactor();
  const behind = w.service;
  const ahead = await w.another({ TOKEN_PEPPERS: `${NEW},${OLD}` });
  const fresh = await issue(at(ahead));
  const { recoveryCodes } = (
    await w
      .as({ cookie: factor.person.cookie! }, ahead)
      .call<{ recoveryCodes: string[] }>('POST /v1/session/totp/recovery-codes', {
        body: { password: PASSWORD, code: factor.recoveryCodes[0] },
      })
  ).body;
  const rpc = tokensCaller({
    address: behind.rpcAddress,
    authorization: firstParty(GATEWAY_RPC_SECRET),
    timeoutMs: 5_000,
  });
  closing.push(() => rpc.close());
  const form = (secret: string) => ({
    raw: new URLSearchParams({ token: secret }).toString(),
    headers: { 'content-type': 'application/x-www-form-urlencoded' },
  });
  expect((await use(old.secret, behind)).status).toBe(200);
  expect((await use(fresh.secret, ahead)).status).toBe(200);
  for (const response of await Promise.all([
    use(fresh.secret, behind),
    use(unknown(), behind),
    at(behind).call('POST /oauth2/introspect', form(fresh.secret)),
    at(behind).call('POST /oauth2/revoke', form(fresh.secret)),
    at(behind).call('POST /v1/tokens/import', { body: { tokens: [entryOf(unknown())] } }),
    factor.signIn(behind, recoveryCodes[0]!),
  ])) {
    expect([response.status, response.body['code']]).toEqual([503, 'unavailable']);
    expect(response.headers.get('www-authenticate')).toBeNull();
  }
  await expect(rpc.lookup({ hash: hash('sha256', fresh.secret, 'base64url') })).rejects.toMatchObject({
    code: status.UNAVAILABLE,
  });
  const logged = w
    .logs()
    .split('\n')
    .filter((line) => line.includes('TOKEN_PEPPERS lacks'));
  expect(logged).toHaveLength(1);
  expect(JSON.parse(logged[0]!)).toMatchObject({ lacking: [ids[NEW]] });
  // Of several reported secrets, those found are revoked all the same.
  const reported = await w
    .as({}, behind)
    .call('POST /v1/tokens/revoke-exposed', { body: { tokens: [old.secret, fresh.secret] } });
  expect(reported.status).toBe(503);
  expect((await use(old.secret, ahead)).status).toBe(401);
  expect((await use(fresh.secret, ahead)).status).toBe(200);
  // It may not start again either.
  await behind.stop();
  expect(await problemOf(w.another())).toContain(ids[NEW]);
});

test('tokens and second factors move to the current pepper when they are used, and the old one can then be removed', async () => {
  const [used, revoked] = [await issue(admin), await issue(admin)];
  const factor = await withFactor();
  await admin.call(`DELETE /v1/tokens/${revoked.id}`);
  await w.service.stop();
  const both = await w.another({ TOKEN_PEPPERS: `${NEW},${OLD}` });
  await use(used.secret, both);
  expect(await rowOf(used.id)).toMatchObject({ fingerprint: ids[OLD] }); // other replicas may not have it yet
  await age();
  await waitFor(async () => {
    await use(revoked.secret, both);
    return (await use(used.secret, both)).status === 200 && (await rowOf(used.id)).fingerprint === ids[NEW];
  });
  const sha256 = hash('sha256', used.secret, 'buffer');
  expect((await rowOf(used.id)).hash).toBe(createHmac('sha256', NEW).update(sha256).digest('hex'));
  await waitFor(async () => (await rowOf(revoked.id)).fingerprint === ids[NEW]);
  expect((await use(used.secret, both)).status).toBe(200);
  expect((await use(revoked.secret, both)).status).toBe(401);
  await both.stop();
  await age();
  const problem = await problemOf(w.another({ TOKEN_PEPPERS: NEW }));
  expect(problem).toContain('tokens: 0, second factors: 1, people with recovery codes: 1');

  const again = await w.another({ TOKEN_PEPPERS: `${NEW},${OLD}` });
  await age();
  await waitFor(async () => {
    await w.database.query('UPDATE second_factors SET last_step = 0');
    await factor.signIn(again, factor.code());
    const [row] = await w.database.query('SELECT pepper_id AS id FROM second_factors');
    return row!['id'] === 2;
  });
  await w.database.query('UPDATE second_factors SET last_step = 0');
  await w
    .as({ cookie: factor.person.cookie! }, again)
    .call('POST /v1/session/totp/recovery-codes', { body: { password: PASSWORD, code: factor.code() } });
  await again.stop();
  await age();
  const alone = await w.another({ TOKEN_PEPPERS: NEW });
  await w.database.query('UPDATE second_factors SET last_step = 0');
  expect((await factor.signIn(alone, factor.code())).status).toBe(200);
  expect((await use(used.secret, alone)).status).toBe(200);
  expect((await use(unknown(), alone)).status).toBe(401);
  expect(await peppersAt(alone)).toMatchObject([
    { id: ids[OLD], configured: false, current: false, inUse: false, tokens: 0, secondFactors: 0, recoveryCodes: 0 },
    { id: ids[NEW], configured: true, current: true, inUse: true, tokens: 1, secondFactors: 1, recoveryCodes: 1 },
  ]);
});

test('tokens do not move while a running replica writes under another pepper or lacks the current one', async () => {
  const { id, secret } = await issue(admin);
  const ahead = await w.another({ TOKEN_PEPPERS: `${NEW},${OLD}` });
  await w.database.query(`UPDATE peppers SET first_used_at = now() - interval '1 minute'`);
  const untilMs = performance.now() + 7_000;
  while (performance.now() < untilMs) {
    expect((await use(secret, ahead)).status).toBe(200);
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
  expect(await rowOf(id)).toMatchObject({ fingerprint: ids[OLD] });
});

test('a pepper that is given up by its fingerprint is not needed any more, and is needed again when it is found', async () => {
  const { secret } = await issue(admin);
  const factor = await withFactor();
  await w.service.stop();
  const without = { TOKEN_PEPPERS: NEW, TOKEN_PEPPERS_GIVEN_UP: ids[OLD]! };
  const given = await w.another(without);
  expect(w.logs()).toMatch(/"level":"?(warn|40)"?.*peppers are given up/);
  expect((await use(secret, given)).status).toBe(401);
  expect((await factor.signIn(given, factor.recoveryCodes[0]!)).status).toBe(401);
  expect((await w.as({ cookie: factor.person.cookie! }, given).call('/v1/session/totp')).body).toEqual({
    enabled: true,
    recoveryCodesLeft: 0,
  });
  await given.stop();
  const later = await w.another({ TOKEN_PEPPERS: NEW });
  expect((await use(secret, later)).status).toBe(401);
  await later.stop();
  expect(await problemOf(w.another({ ...without, TOKEN_PEPPERS: `${NEW},${OLD}` }))).toContain('remove it from one');
  const found = await w.another({ TOKEN_PEPPERS: `${NEW},${OLD}` });
  expect((await use(secret, found)).status).toBe(200);
  await found.stop();
  expect(await problemOf(w.another({ TOKEN_PEPPERS: NEW }))).toContain('tokens: 1,');
});

test('a pepper that is listed and was never the current one is not needed', async () => {
  const next = await w.another({ TOKEN_PEPPERS: `${OLD},${NEW}` });
  expect((await use(unknown(), w.service)).status).toBe(401);
  await next.stop();
  expect((await use(unknown(), await w.another())).status).toBe(401);
});

test('a metric and GET /v1/system count the tokens of each pepper', async () => {
  await Promise.all([issue(admin), issue(admin)]);
  const text = await (await fetch(`${w.service.opsUrl}/metrics`)).text();
  expect(text).toContain(`latchkey_tokens_by_pepper{pepper="${ids[OLD]}",service="token-service"} 2`);
  expect(await peppersAt(w.service)).toEqual([
    {
      id: ids[OLD],
      configured: true,
      current: true,
      inUse: true,
      firstUsedAt: expect.any(String),
      tokens: 2,
      secondFactors: 0,
      recoveryCodes: 0,
    },
  ]);
});

test('an import recognizes a token that is stored under a retired pepper', async () => {
  const tokens = [entryOf(unknown())];
  expect((await admin.call('POST /v1/tokens/import', { body: { tokens } })).status).toBe(201);
  const renewed = await w.another({ TOKEN_PEPPERS: `${NEW},${OLD}` });
  expect((await at(renewed).call('POST /v1/tokens/import', { body: { tokens } })).status).toBe(409);
});
