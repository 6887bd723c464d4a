import { hash } from 'node:crypto';
import {
  CALLERS,
  type CallerName,
  type Cell,
  ENDPOINTS,
  type EndpointName,
  NOTICE_KINDS,
  PERMISSIONS,
  type PermissionRow,
  type Target,
} from '@latchkey/contracts';
import { newId } from '@latchkey/runtime';
import { mint, startOf } from '@latchkey/token-format';
import { issue, type Person, project, type World, world } from './harness.js';

const MEMBER_SCOPES = ['tokens:read', 'tokens:write', 'projects:read', 'projects:write'];
const ADMIN_SCOPES = [
  ...MEMBER_SCOPES,
  'tokens:verify',
  'users:read',
  'users:write',
  'audit:read',
  'system:read',
  'system:write',
];
const PEOPLE = ['administrator', 'owner', 'editor', 'viewer', 'outsider'] as const;
/** Codes that reject the caller; any other result means that the caller was admitted. */
const REJECTIONS = ['unauthenticated', 'invalid_token', 'insufficient_scope', 'forbidden', 'not_found', 'cross_site'];

type Member = Person & { user: { id: string; email: string } };
let w: World;
let people: Record<(typeof PEOPLE)[number], Member>;
let another: Member;
let projectId: string;

/** New for each cell whose call changes it. */
async function newProject(): Promise<string> {
  const id = await project(people.owner);
  for (const role of ['editor', 'viewer'] as const)
    await people.owner.call(`PUT /v1/projects/${id}/members/${people[role].user.id}`, { body: { role } });
  return id;
}

beforeAll(async () => {
  // Nothing listens at the issuer: an admitted caller gets 503.
  w = await world({ env: { OIDC_ISSUER: 'http://127.0.0.1:9', OIDC_CLIENT_ID: 'x' } });
  const [administrator, owner, editor, viewer, outsider] = await Promise.all([
    w.member('Administrator two', 'admin'),
    w.member('Owner'),
    w.member('Editor'),
    w.member('Viewer'),
    w.member('Outsider'),
  ]);
  people = { administrator, owner, editor, viewer, outsider };
  another = await w.member('Another');
  projectId = await newProject();
});
afterAll(() => w.close());

const owned = (caller: CallerName): (typeof PEOPLE)[number] => {
  const name = caller.replace(/Token$/, '') as (typeof PEOPLE)[number];
  return PEOPLE.includes(name) ? name : 'owner';
};

/** The caller of the column. */
async function callerOf(name: CallerName, inProject: string): Promise<Person> {
  if (name === 'nobody') return w.as();
  if (!name.endsWith('Token')) return people[owned(name)];
  const bare = name.startsWith('bare');
  const scopes = bare ? [] : name === 'administratorToken' ? ADMIN_SCOPES : MEMBER_SCOPES;
  const ofProject = name === 'projectToken' || name === 'bareProjectToken';
  const body = ofProject ? { kind: 'prj', projectId: inProject, scopes } : { scopes };
  const { secret } = await issue(people[owned(name)], body);
  return w.bearer(secret);
}

/** A session that the call can end. */
const freshSignIn = (caller: CallerName): Promise<Person> =>
  w.signIn(people[owned(caller)].user.email, 'correct horse battery staple');

interface Cellwise {
  caller: CallerName;
  target: Target;
  projectId: string;
}

/** A token that the call is about. */
async function tokenFor({ caller, target, projectId }: Cellwise): Promise<string> {
  if (target === 'of the project') return (await issue(people.owner, { kind: 'prj', projectId })).id;
  return (await issue(target === 'own' ? people[owned(caller)] : another)).id;
}

/** A receipt about such a token. */
async function receiptFor(at: Cellwise): Promise<string> {
  const id = newId();
  const tokens = [await tokenFor(at)];
  await w.database.query(`INSERT INTO receipts (id, token_ids, body) VALUES ($1, $2, '{"verifiers": []}')`, [
    id,
    tokens,
  ]);
  return id;
}

type Sent = { target: string; body?: unknown; query?: Record<string, string>; form?: string; by?: Person };
const get = (name: EndpointName, path: string = ENDPOINTS[name].path): Sent => ({
  target: `${ENDPOINTS[name].method} ${path}`,
});
const withId = (name: EndpointName, id: string, body?: unknown): Sent => ({
  ...get(name, ENDPOINTS[name].path.replace('{id}', id)),
  ...(body !== undefined && { body }),
});
const onToken = (name: EndpointName, body?: unknown) => async (at: Cellwise) => withId(name, await tokenFor(at), body);
const plain = (name: EndpointName, body?: unknown) => async () => ({
  ...get(name),
  ...(body !== undefined && { body }),
});
const endingSignIn = (name: EndpointName) => async (at: Cellwise) => {
  const isPerson = PEOPLE.some((person) => person === at.caller);
  return { ...get(name), ...(isPerson && { by: await freshSignIn(at.caller) }) };
};
const imported = (kind: 'pat' | 'prj') => {
  const secret = mint(kind);
  return { sha256: hash('sha256', secret, 'hex'), start: startOf(secret), name: 'imported' };
};
const onMember = (name: EndpointName, body?: unknown) => async (at: Cellwise) => {
  const path = ENDPOINTS[name].path.replace('{id}', at.projectId).replace('{userId}', people.viewer.user.id);
  return { ...get(name, path), ...(body !== undefined && { body }) };
};

/** A verifier with a lease, so that there is one to end. */
async function leased(): Promise<string> {
  const [row] = await w.database.query(
    `INSERT INTO leases (verifier_id, name, caller, holder, renewal, lease_ms, renewed_at)
     VALUES (gen_random_uuid(), 'test', 'first-party', 'first-party', pg_current_xact_id(), 1500, now())
     RETURNING verifier_id`,
  );
  return row!['verifier_id'];
}

/** For each call, a request that fails only for callers without permission. */
const REQUESTS: Record<EndpointName, (at: Cellwise) => Promise<Sent>> = {
  signIn: async () => ({
    ...get('signIn'),
    body: { email: another.user.email, password: 'correct horse battery staple' },
  }),
  signInOptions: plain('signInOptions'),
  startOidc: plain('startOidc'),
  finishOidc: plain('finishOidc'),
  setPassword: plain('setPassword', {
    email: `${newId()}@example.org`,
    code: 'wrong',
    newPassword: 'long enough to be taken',
  }),
  forgotPassword: plain('forgotPassword', { email: `${newId()}@example.org` }),
  whoAmI: plain('whoAmI'),
  signOut: endingSignIn('signOut'),
  listSessions: plain('listSessions'),
  endSession: async (at) => {
    const isPerson = PEOPLE.some((person) => person === at.caller);
    if (!isPerson) return withId('endSession', newId());
    const by = await freshSignIn(at.caller);
    const { body } = await by.call<{ items: { id: string; current: boolean }[] }>('/v1/sessions');
    return { ...withId('endSession', body.items.find((one) => one.current)!.id), by };
  },
  // It would end the sessions that later rows need, so a new person makes it.
  endSessions: async (at) => {
    const isPerson = PEOPLE.some((person) => person === at.caller);
    const role = at.caller === 'administrator' ? 'admin' : 'member';
    return { ...get('endSessions'), ...(isPerson && { by: await w.member(undefined, role) }) };
  },
  changePassword: plain('changePassword', { currentPassword: 'a guess', newPassword: 'long enough to be taken' }),
  getSecondFactor: plain('getSecondFactor'),
  startSecondFactor: plain('startSecondFactor', { password: 'a guess' }),
  confirmSecondFactor: plain('confirmSecondFactor', { code: '000000' }),
  removeSecondFactor: plain('removeSecondFactor', { password: 'a guess', code: '000000' }),
  makeRecoveryCodes: plain('makeRecoveryCodes', { password: 'a guess', code: '000000' }),
  issueToken: async ({ target, projectId }) => ({
    ...get('issueToken'),
    body: { name: 'made', ...(target === 'of the project' && { kind: 'prj', projectId }) },
  }),
  importTokens: async ({ target, projectId }) => ({
    ...get('importTokens'),
    body: target === 'of the project' ? { tokens: [imported('prj')], projectId } : { tokens: [imported('pat')] },
  }),
  listTokens: plain('listTokens'),
  getSelf: plain('getSelf'),
  revokeSelf: plain('revokeSelf'),
  rotateSelf: plain('rotateSelf', {}),
  revokeExposed: plain('revokeExposed', { tokens: ['not a token'] }),
  revokeTokens: async ({ target, projectId }) => {
    const owner = target === 'of the project' ? { projectId } : { owner: 'me' };
    const filter = { ...owner, createdBefore: '2020-01-01T00:00:00Z' };
    return { ...get('revokeTokens'), body: { filter, reason: 'unspecified' } };
  },
  // An admitted caller must sign in again, so nothing is revoked: later rows need their tokens.
  revokeAllTokens: async ({ caller }) => {
    const by = caller === 'administrator' ? await freshSignIn(caller) : undefined;
    if (by) {
      const { body } = await by.call<{ items: { id: string; current: boolean }[] }>('/v1/sessions');
      const { id } = body.items.find((one) => one.current)!;
      await w.database.query(`UPDATE sessions SET created_at = created_at - interval '11 minutes' WHERE id = $1`, [id]);
    }
    return { ...get('revokeAllTokens'), body: { reason: 'policy', confirm: 'revoke everything' }, ...(by && { by }) };
  },
  getToken: onToken('getToken'),
  patchToken: onToken('patchToken', { name: 'renamed' }),
  revokeToken: onToken('revokeToken', {}),
  deleteToken: onToken('deleteToken'),
  rotateToken: onToken('rotateToken', {}),
  tokenUsage: onToken('tokenUsage'),
  listScopes: plain('listScopes'),
  getPolicy: plain('getPolicy'),
  putPolicy: plain('putPolicy', {
    lifetimeSecondsMax: null,
    expiryRequired: false,
    allowedIpPrefixes: [],
    idleDays: null,
  }),
  listUsers: plain('listUsers'),
  createUser: async () => ({
    ...get('createUser'),
    body: { email: `${newId()}@example.org`, name: 'New', role: 'member' },
  }),
  patchUser: async () => withId('patchUser', another.user.id, { name: 'Another' }),
  revokeUserTokens: async () => withId('revokeUserTokens', (await w.member()).user.id, {}),
  resetPassword: async () => withId('resetPassword', another.user.id),
  resetSecondFactor: async () => withId('resetSecondFactor', another.user.id),
  listProjects: plain('listProjects'),
  createProject: plain('createProject', { name: 'made' }),
  patchProject: async ({ projectId }) => withId('patchProject', projectId, { name: 'renamed' }),
  closeProject: async ({ projectId }) => withId('closeProject', projectId),
  putMember: onMember('putMember', { role: 'editor' }),
  removeMember: onMember('removeMember'),
  getNoticeChoices: plain('getNoticeChoices'),
  putNoticeChoices: plain('putNoticeChoices', {
    items: [{ kind: Object.keys(NOTICE_KINDS)[0], email: true, webhook: true }],
  }),
  listAudit: plain('listAudit'),
  exportAudit: async () => ({ ...get('exportAudit'), query: { from: new Date().toISOString() } }),
  verifyAudit: plain('verifyAudit'),
  getDenial: async ({ projectId }) => {
    const { id } = await issue(people.owner, { kind: 'prj', projectId });
    const requestId = newId();
    await w.database.query(
      `INSERT INTO denials (request_id, at, reason, token_id, route, method, ip) VALUES ($1, now(), 'revoked', $2, 'r', 'GET', '::1')`,
      [requestId, id],
    );
    return get('getDenial', `/v1/denials/${requestId}`);
  },
  getSystem: plain('getSystem'),
  // Nothing is unsettled: an admitted caller gets 409.
  settleRestore: plain('settleRestore', { choice: 'accept' }),
  getReceipt: async (at) => withId('getReceipt', await receiptFor(at)),
  receiptKeys: plain('receiptKeys'),
  listVerifiers: plain('listVerifiers'),
  endVerifier: async () => withId('endVerifier', await leased()),
  introspect: async () => ({ ...get('introspect'), form: 'token=not+a+token' }),
  oauthRevoke: async () => ({ ...get('oauthRevoke'), form: 'token=not+a+token' }),
};

const USES_UP: EndpointName[] = ['closeProject', 'putMember', 'removeMember'];
const ENDS_ITS_TOKEN: EndpointName[] = ['revokeSelf', 'rotateSelf'];
const callers = new Map<CallerName, Person>();

async function drive({ call, target }: PermissionRow, caller: CallerName): Promise<Cell> {
  const at: Cellwise = { caller, target, projectId: USES_UP.includes(call) ? await newProject() : projectId };
  const isFresh = USES_UP.includes(call) || ENDS_ITS_TOKEN.includes(call);
  const by = (!isFresh && callers.get(caller)) || (await callerOf(caller, at.projectId));
  if (!isFresh) callers.set(caller, by);
  const { form, ...sent } = await REQUESTS[call](at);
  const response = await (sent.by ?? by).call<{ code?: string }>(sent.target, {
    ...(sent.body !== undefined && { body: sent.body }),
    ...(sent.query && { query: sent.query }),
    ...(form && { raw: form, headers: { 'content-type': 'application/x-www-form-urlencoded' } }),
  });
  const { code } = response.body;
  if (response.status === 400) throw new Error(`the request for ${call} is wrong: ${response.text}`);
  return response.status >= 400 && code && REJECTIONS.includes(code) ? (response.status as Cell) : 'yes';
}

describe.each(PERMISSIONS.map((one) => [`${one.call} ${one.target}`, one] as const))('%s', (_, one) => {
  it('each caller is admitted or rejected as the permission table says', async () => {
    const callers = Object.keys(CALLERS) as CallerName[];
    const found = await Promise.all(callers.map(async (caller) => [caller, await drive(one, caller)]));
    expect(Object.fromEntries(found)).toEqual(one.cells);
  });
});
