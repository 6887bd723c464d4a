/** What is there when the backup is made, what is done after it, and whether that is still so after the restore. */
import { asAnyone, must } from './requests.mjs';

/**
 * @typedef {import('./requests.mjs').Cluster} Cluster
 * @typedef {{ id: string, secret: string }} Token
 * @typedef {{ id: string, email: string, cookie: string }} Person
 * @typedef {Awaited<ReturnType<typeof populate>>} Population
 */

const KEPT = 5;
const OLD_PASSWORD = 'the password of before the backup';
const NEW_PASSWORD = 'the password of after the backup';
const REVOKED_AT_ONCE = 8;

/** @param {Cluster} cluster @param {number} tokens how many to revoke later */
export async function populate(cluster, tokens) {
  const make = (/** @type {string} */ name, /** @type {object} */ more = {}) => issue(cluster, name, more);
  const person = async (/** @type {string} */ name, /** @type {'admin' | 'member'} */ role = 'member') => {
    const email = `${name}@example.org`;
    const { id } = await must(cluster, 'POST', '/v1/users', { email, name, role, password: OLD_PASSWORD });
    return { id, email, cookie: await signIn(cluster, email, OLD_PASSWORD) };
  };
  const project = async (/** @type {string} */ name) => (await must(cluster, 'POST', '/v1/projects', { name })).id;
  const [leaver, changer, removed, witness] = await Promise.all(
    ['leaver', 'changer', 'removed', 'witness'].map((name) => person(name)),
  );
  if (!leaver || !changer || !removed || !witness) throw new Error('a person is missing');
  const demoted = await person('demoted', 'admin');
  const [closed, team] = [await project('closed'), await project('team')];
  for (const { id } of [removed, changer])
    await must(cluster, 'PUT', `/v1/projects/${team}/members/${id}`, { role: 'editor' });
  const issuedTo = async (/** @type {Person} */ { cookie }) => {
    const { status, body } = await asAnyone(cluster, 'POST', '/v1/tokens', { cookie, body: { name: 'of a person' } });
    if (status !== 201) throw new Error(`issuing a token to a person returned ${status}`);
    return /** @type {Token} */ (body);
  };
  return {
    victims: await inGroups(
      Array.from({ length: tokens }, (_, i) => i),
      (i) => make(`revoked ${i}`),
    ),
    kept: await Promise.all(Array.from({ length: KEPT }, (_, i) => make(`kept ${i}`))),
    narrowed: await make('narrowed', { scopes: ['demo:read', 'demo:write'] }),
    disabled: await make('disabled'),
    ofClosed: await make('of a closed project', { kind: 'prj', projectId: closed }),
    ofLeaver: await issuedTo(leaver),
    ...{ leaver, changer, demoted, removed, witness, closed, team },
    /** Signed in twice: the session in which the password is changed, and another one. */
    other: await signIn(cluster, changer.email, OLD_PASSWORD),
  };
}

/**
 * What must not be undone.
 * @param {Cluster} cluster @param {Population} was
 * @param {() => Promise<void>} beforeLast called before the last token is revoked
 * @returns {Promise<Record<string, number>>} how many receipts of the revocations say what of the ledger
 */
export async function narrow(cluster, was, beforeLast) {
  await must(cluster, 'PATCH', `/v1/tokens/${was.narrowed.id}`, { scopes: ['demo:read'] });
  await must(cluster, 'PATCH', `/v1/tokens/${was.disabled.id}`, { disabled: true });
  await must(cluster, 'PATCH', `/v1/users/${was.leaver.id}`, { disabled: true });
  await must(cluster, 'PATCH', `/v1/users/${was.demoted.id}`, { role: 'member' });
  await must(cluster, 'DELETE', `/v1/projects/${was.closed}`);
  await must(cluster, 'DELETE', `/v1/projects/${was.team}/members/${was.removed.id}`);
  await must(cluster, 'PUT', `/v1/projects/${was.team}/members/${was.changer.id}`, { role: 'viewer' });
  const changed = await asAnyone(cluster, 'POST', '/v1/session/password', {
    cookie: was.changer.cookie,
    body: { currentPassword: OLD_PASSWORD, newPassword: NEW_PASSWORD },
  });
  if (changed.status >= 300) throw new Error(`changing a password returned ${changed.status}`);
  /** @type {Record<string, number>} */
  const receipts = {};
  const revoke = async (/** @type {Token} */ { id }, /** @type {number} */ i) => {
    const reason = i % 2 ? 'exposed' : 'no_longer_needed';
    const { effective, receipt } = await must(cluster, 'POST', `/v1/tokens/${id}/revoke`, { reason });
    if (!effective) throw new Error('a revocation is not effective');
    receipts[receipt.ledger] = (receipts[receipt.ledger] ?? 0) + 1;
  };
  await inGroups(was.victims.slice(0, -1), revoke);
  await beforeLast();
  for (const last of was.victims.slice(-1)) await revoke(last, was.victims.length - 1);
  return receipts;
}

/** Every token that must not be accepted any more. @param {Population} was */
export const refusedTokens = (was) => [...was.victims, was.disabled, was.ofClosed, was.ofLeaver];

/**
 * Passwords and sessions of before that are accepted.
 * @param {Cluster} cluster @param {Population} was
 * @param {boolean} isRestored the database was put back: sessions of before it have ended
 * @returns what was accepted and when, and whether the password was accepted or refused: not 502 or 503
 */
export async function oldCredentials(cluster, was, isRestored) {
  const sessions = { 'session of a disabled person': was.leaver.cookie, 'session under an old password': was.other };
  const endedByRestore = {
    'session of an administrator': cluster.cookie,
    'session of a person': was.witness.cookie,
    'session in which a password was changed': was.changer.cookie,
  };
  /** @type {{ what: string, startMs: number, endMs: number }[]} */
  const accepted = [];
  const ask = async (/** @type {string} */ what, /** @type {() => ReturnType<typeof asAnyone>} */ request) => {
    const startMs = performance.now();
    const { status } = await request();
    if (status === 200 || status === 201) accepted.push({ what, startMs, endMs: performance.now() });
    return status;
  };
  for (const [what, cookie] of Object.entries({ ...sessions, ...(isRestored && endedByRestore) }))
    await ask(what, () => asAnyone(cluster, 'GET', '/v1/session', { cookie }));
  const issuing = { cookie: was.leaver.cookie, body: { name: 'of a disabled person' } };
  await ask('token issued by a disabled person', () => asAnyone(cluster, 'POST', '/v1/tokens', issuing));
  const body = { email: was.changer.email, password: OLD_PASSWORD };
  const status = await ask('old password', () => asAnyone(cluster, 'POST', '/v1/session', { body }));
  return { accepted, isDecided: status !== 0 && status < 500 };
}

/** Whether a session of before is accepted, of a person to whom nothing happened. @param {Cluster} cluster @param {Population} was */
export const isSessionKept = async (cluster, { witness }) =>
  (await asAnyone(cluster, 'GET', '/v1/session', { cookie: witness.cookie })).status === 200;

/** What else has been undone. The administrator is signed in. @param {Cluster} cluster @param {Population} was */
export async function undone(cluster, was) {
  /** @type {{ items: { id: string, role: string, disabled: boolean }[] }} */
  const people = await must(cluster, 'GET', '/v1/users?limit=100');
  /** @type {{ items: { id: string, closed: boolean, members: { userId: string, role: string }[] }[] }} */
  const projects = await must(cluster, 'GET', '/v1/projects?limit=100');
  const authorization = `Bearer ${was.narrowed.secret}`;
  const self = await asAnyone(cluster, 'GET', '/v1/tokens/self', { authorization });
  const members = projects.items.find(({ id }) => id === was.team)?.members ?? [];
  const roleOf = (/** @type {Person} */ { id }) => members.find(({ userId }) => userId === id)?.role;
  const personOf = (/** @type {Person} */ { id }) => people.items.find((one) => one.id === id);
  const open = projects.items.some(({ id, closed }) => id === was.closed && !closed);
  const scopes = /** @type {{ scopes?: string[] }} */ (self.body).scopes;
  return [
    ...(personOf(was.leaver)?.disabled ? [] : ['a disabled person is not disabled']),
    ...(personOf(was.demoted)?.role === 'member' ? [] : ['a lower role is higher again']),
    ...(open ? ['a closed project is open'] : []),
    ...(roleOf(was.removed) === undefined ? [] : ['a removed member is a member']),
    ...(roleOf(was.changer) === 'viewer' ? [] : [`a member's lower role is ${roleOf(was.changer)}`]),
    ...(scopes?.join() === 'demo:read' ? [] : [`narrowed scopes are ${scopes ?? self.status}`]),
  ];
}

/** @param {Cluster} cluster @param {string} name @param {object} [more] @returns {Promise<Token>} */
export const issue = (cluster, name, more = {}) => must(cluster, 'POST', '/v1/tokens', { name, ...more });

/** @param {Cluster} cluster @param {string} email @param {string} password */
async function signIn(cluster, email, password) {
  const { status, cookie } = await asAnyone(cluster, 'POST', '/v1/session', { body: { email, password } });
  if (status !== 200 || !cookie) throw new Error(`signing in returned ${status}`);
  return cookie;
}

/** @template T, R @param {readonly T[]} list @param {(one: T, index: number) => Promise<R>} work */
async function inGroups(list, work) {
  /** @type {R[]} */
  const results = [];
  for (let from = 0; from < list.length; from += REVOKED_AT_ONCE) {
    const group = list.slice(from, from + REVOKED_AT_ONCE);
    results.push(...(await Promise.all(group.map((one, i) => work(one, from + i)))));
  }
  return results;
}
