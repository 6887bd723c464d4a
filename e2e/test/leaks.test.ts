import type { IssuedToken } from '@latchkey/contracts';
import { ask, noteSecret, Person } from '../src/caller.js';
import {
  filesThatHold,
  logs,
  needlesFor,
  notedSecrets,
  processArguments,
  redisContents,
  search,
  tables,
} from '../src/leaks.js';
import { placeOfRun, readyOf } from '../src/stack.js';

/*
 * The search covers every secret of the whole run. First this file sends one everywhere a person might put it by
 * mistake, since that is where they leak.
 */
const place = placeOfRun();
const { url, apiUrl, opsUrl } = readyOf(place);

let needles: ReturnType<typeof needlesFor>;
/** A token whose id is in everything searched, but not its secret: it proves that the search reads them. */
let known: IssuedToken;
beforeAll(async () => {
  const admin = await Person.admin(place);
  known = await admin.issue({ scopes: ['tokens:read', 'tokens:verify'] });
  const { secret, id } = known;
  const form = { 'content-type': 'application/x-www-form-urlencoded' };
  for (const base of [url, apiUrl]) {
    await ask(`${base}/v1/tokens?access_token=${secret}`);
    await ask(`${base}/v1/tokens?q=${secret}`, 'GET', { token: secret });
    await ask(`${base}/v1/tokens/${secret}`, 'GET', { token: secret });
    await ask(`${base}/v1/denials/${secret}`, 'GET', { token: secret });
    await ask(`${base}/v1/tokens`, 'POST', { token: secret, json: { name: 'x', token: secret, scopes: [secret] } });
    await ask(`${base}/v1/tokens`, 'POST', {
      token: secret,
      headers: { 'content-type': 'application/json' },
      body: `{"name": ${secret}`,
    });
    await ask(`${base}/v1/session`, 'POST', { json: { email: secret, password: secret }, headers: { origin: base } });
    await ask(`${base}/oauth2/introspect`, 'POST', { token: secret, headers: form, body: `token=${secret}` });
    await ask(`${base}/oauth2/introspect`, 'POST', { headers: form, body: `token=${secret}&access_token=${secret}` });
    await ask(`${base}/v1/tokens/self`, 'GET', {
      headers: { authorization: `Basic ${Buffer.from(`${secret}:`).toString('base64')}` },
    });
    await ask(`${base}/v1/tokens/self`, 'GET', {
      token: secret,
      headers: {
        'x-request-id': secret,
        'user-agent': secret,
        referer: secret,
        cookie: `latchkey_session=${secret}`,
        'idempotency-key': secret,
      },
    });
  }
  await ask(`${url}/demo/${secret}`, 'GET', { token: secret });
  await ask(`${url}/${secret}`);
  await ask(`${opsUrl}/forward-auth`, 'GET', {
    token: secret,
    headers: { 'x-forwarded-uri': `/demo/${secret}?access_token=${secret}` },
  });
  const { body } = await admin.call<{ secret: string }>('POST', `/v1/tokens/${id}/rotate`);
  noteSecret(place, body.secret);
  await ask(`${url}/v1/tokens/self`, 'GET', { token: body.secret });
  await ask(`${url}/v1/tokens/revoke-exposed`, 'POST', { json: { tokens: [secret, body.secret] } });
  // What is counted, logged and queued gets a moment to arrive where it would be found.
  await new Promise((resolve) => setTimeout(resolve, 3_000));
  const secrets = notedSecrets(place);
  expect(secrets.length).toBeGreaterThanOrEqual(2);
  needles = secrets.flatMap(needlesFor);
});

it('finds a secret in every form', () => {
  const secret = 'lk_pat_0123456789abcdefghijklmnopqrstuvwxyz';
  const own = needlesFor(secret);
  expect(own.length).toBe(9);
  for (const { text, what } of own)
    expect(search([{ where: 'here', text: `before ${text} after` }], own)).toContainEqual({ where: 'here', what });
});

it('keeps secrets and their hashes out of every log line', () => {
  const found = logs(place);
  expect(found.map(({ where }) => where)).toContain('launcher.log');
  expect(found.find(({ where }) => where === 'launcher.log')!.text).toContain('request');
  expect(search(found, needles)).toEqual([]);
});

it('keeps secrets and their hashes out of every command that reached Redis, and out of what Redis stores', async () => {
  expect(search(await redisContents(readyOf(place).redisUrl), needles)).toEqual([]);
  const commands = logs(place).find(({ where }) => where === 'redis.log')!;
  expect(commands.text).toContain(known.id);
});

it('keeps secrets and their hashes out of every column of every table', async () => {
  const found = await tables(readyOf(place).databaseUrl);
  expect(search(found, [{ text: known.start, what: 'start' }]).length).toBeGreaterThan(0);
  expect(search(found, needles)).toEqual([]);
});

it("keeps secrets and their hashes out of the ledger and of every file below LATCHKEY_HOME, the database's log of changes included", async () => {
  expect((await filesThatHold(place, [{ text: known.start, what: 'start' }])).length).toBeGreaterThan(0);
  expect(await filesThatHold(place, needles)).toEqual([]);
});

it('keeps secrets out of process arguments', () => {
  const found = processArguments(place);
  expect(search(found, [{ text: 'main.js', what: 'program' }]).length).toBeGreaterThanOrEqual(3);
  expect(search(found, needles)).toEqual([]);
});
