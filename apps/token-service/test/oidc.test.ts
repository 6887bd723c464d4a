import { generateKeyPairSync } from 'node:crypto';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { AuditEvent, User } from '@latchkey/contracts';
import Provider from 'oidc-provider';
import { type Person, type World, world } from './harness.js';

/** A real OpenID provider with the people of the test; every sign-in there is as `who`. */
async function provider(redirectUri: string) {
  const people = new Map<string, Record<string, unknown>>();
  const server: Server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const state = { issuer, people, who: '' };
  const oidc = new Provider(issuer, {
    clients: [{ client_id: 'latchkey', client_secret: 'a secret of the test', redirect_uris: [redirectUri] }],
    findAccount: (_, sub) => ({ accountId: sub, claims: () => ({ sub, ...people.get(sub) }) }),
    claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['name'] },
    // As with most providers: the ID token has the subject, the userinfo endpoint the rest.
    conformIdTokenClaims: true,
    jwks: { keys: [generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({ format: 'jwk' })] },
    ttl: { AccessToken: 60, Grant: 60, IdToken: 60, Interaction: 60, Session: 60 },
    features: { devInteractions: { enabled: false } },
    cookies: { keys: ['a key of the test'] },
    pkce: { required: () => true },
    interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
  });
  const handle = oidc.callback();
  server.on('request', async (request, response) => {
    if (!request.url?.startsWith('/interaction/')) return handle(request, response);
    const details = await oidc.interactionDetails(request, response);
    if (state.who === 'refuses') {
      await oidc.interactionFinished(request, response, { error: 'access_denied' }, { mergeWithLastSubmission: false });
      return;
    }
    const { grantId } = details;
    const grant =
      (grantId && (await oidc.Grant.find(grantId))) || new oidc.Grant({ accountId: state.who, clientId: 'latchkey' });
    grant.addOIDCScope('openid email profile');
    const result = { login: { accountId: state.who }, consent: { grantId: await grant.save() } };
    await oidc.interactionFinished(request, response, result, { mergeWithLastSubmission: false });
  });
  const stop = () =>
    new Promise<void>((resolve) => {
      server.close(() => resolve());
      server.closeAllConnections();
    });
  return { ...state, state, stop };
}

const PUBLIC_URL = 'http://127.0.0.1:8080';
const CALLBACK = `${PUBLIC_URL}/v1/session/oidc/callback`;
let op: Awaited<ReturnType<typeof provider>>;
let w: World;
let admin: Person;
beforeAll(async () => {
  op = await provider(CALLBACK);
  w = await world({
    env: {
      OIDC_ISSUER: op.issuer,
      OIDC_CLIENT_ID: 'latchkey',
      OIDC_CLIENT_SECRET: 'a secret of the test',
      OIDC_NAME: 'Acme',
    },
  });
  admin = await w.signIn();
});
afterAll(async () => {
  await w.close();
  await op.stop();
});

/** Stores cookies by host as a browser does; follows no redirects. */
class Browser {
  readonly #jars = new Map<string, Map<string, string>>();

  async get(url: string, headers: Record<string, string> = {}): Promise<Response> {
    const jar = this.#jar(url);
    const cookie = [...jar].map(([name, value]) => `${name}=${value}`).join('; ');
    const response = await fetch(url, { redirect: 'manual', headers: { ...headers, ...(cookie && { cookie }) } });
    for (const line of response.headers.getSetCookie()) {
      const [, name = '', value = ''] = /^([^=]+)=([^;]*)/.exec(line) ?? [];
      if (/max-age=0/i.test(line) || value === '') jar.delete(name);
      else jar.set(name, value);
    }
    return response;
  }

  cookie(url: string, name: string): string | undefined {
    return this.#jar(url).get(name);
  }

  #jar(url: string): Map<string, string> {
    const { host } = new URL(url);
    const jar = this.#jars.get(host) ?? new Map<string, string>();
    this.#jars.set(host, jar);
    return jar;
  }
}

/** Follows the sign-in through the identity provider; returns the callback's address, at the service's own port. */
async function authorize(browser: Browser, api = w.service.apiUrl): Promise<string> {
  let response = await browser.get(`${api}/v1/session/oidc`);
  for (;;) {
    expect([302, 303]).toContain(response.status);
    const location = new URL(response.headers.get('location')!, op.issuer).href;
    if (location.startsWith(CALLBACK)) return location.replace(PUBLIC_URL, api);
    response = await browser.get(location);
  }
}

async function signInWithProvider(who: string, browser = new Browser(), api = w.service.apiUrl) {
  op.state.who = who;
  const response = await browser.get(await authorize(browser, api));
  const cookie = browser.cookie(api, 'latchkey_session');
  const user = cookie
    ? (await w.as({ cookie: `latchkey_session=${cookie}` }).call<{ user: User }>('/v1/session')).body.user
    : undefined;
  const body = response.status === 302 ? {} : ((await response.json()) as { code?: string });
  return { status: response.status, location: response.headers.get('location'), user, code: body.code };
}

it('the sign-in options list the identity provider where one is configured', async () => {
  expect((await w.as().call('/v1/session/options')).body).toEqual({
    password: true,
    oidc: { name: 'Acme', url: '/v1/session/oidc' },
    forgotPassword: false,
  });
  const without = await w.another({ OIDC_ISSUER: '', OIDC_CLIENT_ID: '' });
  expect((await w.as({}, without).call('/v1/session/options')).body).toMatchObject({ password: true, oidc: null });
  expect((await w.as({}, without).call('/v1/session/oidc')).status).toBe(404);
});

it('OIDC signs in the person with the email address that the provider has verified, and later by subject', async () => {
  const person = await w.member('Ada');
  op.people.set('ada', { email: person.user.email.toUpperCase(), email_verified: true, name: 'Ada L.' });
  const first = await signInWithProvider('ada');
  expect(first).toMatchObject({ status: 302, location: `${PUBLIC_URL}/`, user: { id: person.user.id, name: 'Ada' } });
  op.people.set('ada', { email: 'moved@example.org', email_verified: true });
  expect((await signInWithProvider('ada')).user?.id).toBe(person.user.id);
  const { body } = await admin.call<{ items: AuditEvent[] }>('/v1/audit?action=user.updated&limit=5');
  expect(body.items.map(({ details }) => details)).toContainEqual({ signsInAlsoAt: op.issuer });
});

it('OIDC accepts no email address that the provider has not verified', async () => {
  const person = await w.member();
  for (const verified of [false, 'true', undefined]) {
    op.people.set('mallory', { email: person.user.email, email_verified: verified });
    expect(await signInWithProvider('mallory')).toMatchObject({ status: 401, code: 'sign_in_failed', user: undefined });
  }
});

it('OIDC signs in no unknown or disabled person, and no one whom the provider refused', async () => {
  op.people.set('eve', { email: 'eve@example.org', email_verified: true });
  expect(await signInWithProvider('eve')).toMatchObject({ status: 401, user: undefined });
  expect(await signInWithProvider('refuses')).toMatchObject({ status: 401, user: undefined });
  const person = await w.member();
  op.people.set('dora', { email: person.user.email, email_verified: true });
  expect((await signInWithProvider('dora')).status).toBe(302);
  await admin.call(`PATCH /v1/users/${person.user.id}`, { body: { disabled: true }, headers: { prefer: 'wait=0' } });
  expect(await signInWithProvider('dora')).toMatchObject({ status: 401, user: undefined });
});

it('OIDC creates a new member only where that is configured', async () => {
  const open = await w.another({ OIDC_CREATE_USERS: 'true' });
  op.people.set('nina', { email: 'nina@example.org', email_verified: true, name: 'Nina' });
  expect((await signInWithProvider('nina')).status).toBe(401);
  const { user } = await signInWithProvider('nina', new Browser(), open.apiUrl);
  expect(user).toMatchObject({ email: 'nina@example.org', name: 'Nina', role: 'member' });
});

it('an OIDC callback is rejected in another browser, a second time, and when changed', async () => {
  const person = await w.member();
  op.people.set('ada2', { email: person.user.email, email_verified: true });
  op.state.who = 'ada2';
  const browser = new Browser();
  const address = await authorize(browser);
  expect((await new Browser().get(address)).status).toBe(401);
  const other = new Browser();
  await authorize(other);
  expect((await other.get(address)).status).toBe(401);
  expect((await browser.get(address.replace(/state=[^&]+/, 'state=other'))).status).toBe(401);
  expect((await browser.get(address)).status).toBe(302);
  expect((await browser.get(address)).status).toBe(401);
});

it('a failed OIDC sign-in redirects to the sign-in page with the cause, and nothing that the provider wrote', async () => {
  const html = { headers: { accept: 'text/html,application/xhtml+xml;q=0.9' } };
  op.people.set('stranger', { email: 'stranger@example.org', email_verified: true });
  for (const [who, cause] of [
    ['stranger', 'unknown'],
    ['refuses', 'refused'],
  ] as const) {
    op.state.who = who;
    const browser = new Browser();
    const response = await browser.get(await authorize(browser), html.headers);
    expect(response.status).toBe(302);
    expect(response.headers.get('location')).toMatch(
      new RegExp(`^${PUBLIC_URL}/#/sign-in\\?failed=${cause}&requestId=[0-9a-f-]{36}$`),
    );
    expect(browser.cookie(w.service.apiUrl, 'latchkey_session')).toBeUndefined();
  }
  const uninvited = await new Browser().get(
    `${w.service.apiUrl}/v1/session/oidc/callback?code=x&state=y`,
    html.headers,
  );
  expect(uninvited.headers.get('location')).toContain('/#/sign-in?failed=expired&');
});

it('an OIDC sign-in returns 503 while the identity provider is unavailable', async () => {
  const stopped = await provider(CALLBACK);
  await stopped.stop();
  const service = await w.another({ OIDC_ISSUER: stopped.issuer });
  const { status, body } = await w.as({}, service).call('/v1/session/oidc');
  expect([status, body['code']]).toEqual([503, 'unavailable']);
  const shown = await new Browser().get(`${service.apiUrl}/v1/session/oidc`, { accept: 'text/html' });
  expect([shown.status, shown.headers.get('location')]).toEqual([
    302,
    expect.stringContaining('/#/sign-in?failed=away&'),
  ]);
});
