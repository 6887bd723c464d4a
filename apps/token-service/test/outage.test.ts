import { status } from '@grpc/grpc-js';
import { bearer, firstParty, tokensCaller } from '@latchkey/runtime';
import { type FaultyLink, faultyLink, waitFor } from '@latchkey/testing';
import type { TokenService } from '../src/app.js';
import { asRole } from './database.js';
import { GATEWAY_RPC_SECRET, issue, type Person, type World, world } from './harness.js';

let w: World;
let link: FaultyLink;
let service: TokenService;
let person: Person;
beforeAll(async () => {
  w = await world();
  link = await faultyLink(w.database.url);
  service = await w.another({ DATABASE_URL: link.url(asRole(w.database.url, 'latchkey_service')) });
  person = await w.member();
});
afterAll(async () => {
  link.heal();
  await w.close();
  await link.close();
});

test('while PostgreSQL is unavailable every endpoint returns "unavailable" and nothing about the token, and works again after', async () => {
  const { secret } = await issue(person, { scopes: ['tokens:read'] });
  const verifying = await issue(await w.signIn(), { scopes: ['tokens:verify'] });
  const first = tokensCaller({
    address: service.rpcAddress,
    authorization: firstParty(GATEWAY_RPC_SECRET),
    timeoutMs: 15_000,
  });
  const other = tokensCaller({
    address: service.rpcAddress,
    authorization: bearer(verifying.secret),
    timeoutMs: 15_000,
  });
  const request = { token: secret, scopes: [], project: '', ip: '', route: '', userAgent: '' };
  try {
    expect((await w.bearer(secret, service).call('/v1/tokens/self')).status).toBe(200);
    link.cut();
    const callers = [
      w.bearer(secret, service).call('/v1/tokens/self'),
      w.as({ cookie: person.cookie! }, service).call('/v1/tokens'),
      w.as({ cookie: person.cookie! }, service).call('POST /v1/tokens', { body: { name: 'x' } }),
      w.as({}, service).call('POST /v1/session', { body: { email: 'a@example.org', password: 'x' } }),
      w.as({}, service).call('POST /v1/tokens/revoke-exposed', { body: { tokens: [secret] } }),
    ];
    for (const response of await Promise.all(callers)) {
      expect([response.status, response.body['code']]).toEqual([503, 'unavailable']);
      expect(response.headers.get('retry-after')).toBeTruthy();
      expect(response.headers.get('www-authenticate')).toBeNull();
    }
    for (const caller of [first, other])
      await expect(caller.verify(request)).rejects.toMatchObject({ code: status.UNAVAILABLE });
    const ready = await fetch(`${service.opsUrl}/readyz`);
    expect(ready.status).toBe(503);
    expect((await fetch(`${service.opsUrl}/healthz`)).status).toBe(200);
    link.heal();
    await waitFor(async () => (await fetch(`${service.opsUrl}/readyz`)).ok, {
      timeoutMs: 10_000,
      what: 'being ready again',
    });
    expect((await w.bearer(secret, service).call('/v1/tokens/self')).status).toBe(200);
    expect((await first.verify(request)).allowed).toBe(true);
  } finally {
    first.close();
    other.close();
  }
});

test('while Redis is unavailable tokens are still issued, verified and revoked', async () => {
  await w.redis.kill();
  try {
    const token = await issue(person);
    expect((await w.bearer(token.secret).call('/v1/tokens/self')).status).toBe(200);
    const revoked = await person.call(`POST /v1/tokens/${token.id}/revoke`);
    expect(revoked.body).toMatchObject({ effective: true });
    expect((await w.bearer(token.secret).call('/v1/tokens/self')).status).toBe(401);
  } finally {
    await w.redis.restart();
  }
});

test('an outage of PostgreSQL that no request sees is logged once when it begins and once when it is over', async () => {
  const about = () =>
    w
      .logs()
      .split('\n')
      .filter((line) => line.includes('"PostgreSQL is '))
      .map((line) => JSON.parse(line) as { msg: string; failures?: number });
  // The outage of another test can still be under way.
  await waitFor(() => about().length % 2 === 0, { timeoutMs: 30_000 });
  const before = about().length;
  link.cut();
  await waitFor(() => about().length > before, { timeoutMs: 30_000 });
  const calls = Array.from({ length: 20 }, () => w.as({ cookie: person.cookie! }, service).call('/v1/tokens'));
  expect((await Promise.all(calls)).map(({ status }) => status)).toEqual(calls.map(() => 503));
  link.heal();
  await waitFor(() => about().length > before + 1, { timeoutMs: 30_000 });
  expect(
    about()
      .slice(before)
      .map(({ msg }) => msg),
  ).toEqual(['PostgreSQL is unavailable; requests that need it get 503', 'PostgreSQL is available again']);
  expect(about().at(-1)!.failures).toBeGreaterThan(20);
});
