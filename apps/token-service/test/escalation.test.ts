import { hash } from 'node:crypto';
import { GATEWAY_PROOF_HEADER, type IssuedToken } from '@latchkey/contracts';
import { mint, startOf } from '@latchkey/token-format';
import { type ApiResponse, issue, type Person, project, type World, world } from './harness.js';

type Member = Person & { user: { id: string; email: string } };
let w: World;
let administrator: Member;
let owner: Member;
let editor: Member;
let viewer: Member;
let outsider: Member;
let projectId: string;
let elsewhere: string;
beforeAll(async () => {
  w = await world();
  administrator = (await w.signIn()) as Member;
  [owner, editor, viewer, outsider] = await Promise.all([w.member(), w.member(), w.member(), w.member()]);
  projectId = await project(owner);
  elsewhere = await project(outsider);
  for (const [person, role] of [
    [editor, 'editor'],
    [viewer, 'viewer'],
  ] as const)
    await owner.call(`PUT /v1/projects/${projectId}/members/${person.user.id}`, { body: { role } });
});
afterAll(() => w.close());

const SOON = () => new Date(Date.now() + 3_600_000).toISOString();
const make = (by: Person, body: object): Promise<ApiResponse> =>
  by.call('POST /v1/tokens', { body: { name: 'more', ...body } });
const inProject = (scopes: string[] = []) => ({ kind: 'prj', projectId, scopes });
const patch = (by: Person, id: string, body: object) => by.call(`PATCH /v1/tokens/${id}`, { body });
const rotate = (by: Person, id: string, body: object = {}) => by.call(`POST /v1/tokens/${id}/rotate`, { body });
const importOne = (by: Person, scopes: string[]) => {
  const secret = mint('pat');
  const token = { sha256: hash('sha256', secret, 'hex'), start: startOf(secret), name: 'moved', scopes };
  return by.call('POST /v1/tokens/import', { body: { tokens: [token] } });
};
const issueAs = async (by: Person, body: object): Promise<{ token: IssuedToken; by: Person }> => {
  const token = await issue(by, { ...body });
  return { token, by: w.bearer(token.secret) };
};
/** A token of the owner with tokens:write, and a caller that uses it. */
const writer = (more: object = {}) => issueAs(owner, { scopes: ['tokens:write'], ...more });

/** The attempt, and the status that rejects it. */
const attempts: [string, number, () => Promise<ApiResponse>][] = [
  // Scopes that the caller does not have
  ['a member grants tokens:verify', 403, () => make(owner, { scopes: ['tokens:verify'] })],
  ['a member grants users:write', 403, () => make(owner, { scopes: ['users:write'] })],
  ['a member grants audit:read', 403, () => make(owner, { scopes: ['audit:read'] })],
  ['a member imports a token with users:write', 403, () => importOne(owner, ['users:write'])],
  ['an owner grants tokens:verify to a project token', 403, () => make(owner, inProject(['tokens:verify']))],
  ['an owner grants users:read to a project token', 403, () => make(owner, inProject(['users:read']))],
  ['an editor grants projects:write to a project token', 403, () => make(editor, inProject(['projects:write']))],
  ['an editor grants demo:admin, which only owners have', 403, () => make(editor, inProject(['demo:admin']))],
  ['a viewer issues a project token', 403, () => make(viewer, inProject())],
  ['an outsider issues a project token', 404, () => make(outsider, inProject())],
  ['a member grants every scope at once', 400, () => make(owner, { scopes: ['*'] })],
  ['an administrator grants an undeclared scope', 400, () => make(administrator, { scopes: ['made:up'] })],

  // Tokens that issue tokens
  ['a token grants a scope that it lacks', 403, async () => make((await writer()).by, { scopes: ['tokens:read'] })],
  ['a token imports a scope that it lacks', 403, async () => importOne((await writer()).by, ['tokens:read'])],
  ['a token with an expiry issues one without', 403, async () => make((await writer({ expiresAt: SOON() })).by, {})],
  [
    'a token with an expiry issues one that expires later',
    403,
    async () => make((await writer({ expiresAt: SOON() })).by, { expiresInSeconds: 86_400 }),
  ],
  [
    'a token bound to addresses issues one that is not',
    403,
    async () => make((await writer({ allowedIps: ['127.0.0.0/8'] })).by, {}),
  ],
  [
    'a token bound to addresses issues one for more addresses',
    403,
    async () => make((await writer({ allowedIps: ['127.0.0.0/16'] })).by, { allowedIps: ['127.0.0.0/8'] }),
  ],
  [
    'a token with a rate limit issues one without',
    403,
    async () => make((await writer({ rateLimit: { limit: 100, windowSeconds: 60 } })).by, {}),
  ],
  [
    'a token with a rate limit issues one with larger bursts',
    403,
    async () =>
      make((await writer({ rateLimit: { limit: 100, windowSeconds: 1 } })).by, {
        rateLimit: { limit: 5_000, windowSeconds: 60 },
      }),
  ],
  [
    'a project token issues a personal one',
    403,
    async () => make((await issueAs(owner, inProject(['tokens:write']))).by, {}),
  ],
  [
    'a project token issues one of another project',
    404,
    async () => make((await issueAs(owner, inProject(['tokens:write']))).by, { kind: 'prj', projectId: elsewhere }),
  ],
  [
    'a child uses a scope that its parent has lost',
    403,
    async () => {
      const parent = await issueAs(owner, { scopes: ['tokens:write', 'tokens:read'] });
      const child = await issueAs(parent.by, { scopes: ['tokens:write', 'tokens:read'] });
      await patch(owner, parent.token.id, { scopes: ['tokens:write'] });
      return child.by.call('/v1/tokens');
    },
  ],

  // Tokens that change tokens
  [
    'a token adds a scope to itself',
    403,
    async () => {
      const { token, by } = await writer();
      return patch(by, token.id, { scopes: ['tokens:write', 'projects:write'] });
    },
  ],
  [
    'a token removes its own address bounds',
    403,
    async () => {
      const { token, by } = await writer({ allowedIps: ['127.0.0.0/8'] });
      return patch(by, token.id, { allowedIps: [] });
    },
  ],
  [
    'a token removes its own rate limit',
    403,
    async () => {
      const { token, by } = await writer({ rateLimit: { limit: 100, windowSeconds: 60 } });
      return patch(by, token.id, { rateLimit: null });
    },
  ],
  [
    'a token rotates one that can do more, and is shown its secret',
    403,
    async () => rotate((await writer()).by, (await issue(owner, { scopes: ['projects:write'] })).id),
  ],
  [
    'a token enables one that can do more',
    403,
    async () => {
      const { id } = await issue(owner, { scopes: ['projects:write'] });
      await patch(owner, id, { disabled: true });
      return patch((await writer()).by, id, { disabled: false });
    },
  ],
  [
    'a token extends its expiry by rotating itself',
    403,
    async () => {
      const { by } = await writer({ expiresAt: SOON() });
      return by.call('POST /v1/tokens/self/rotate', { body: { expiresInSeconds: 9_000_000 } });
    },
  ],
  [
    'a patch sets another owner',
    400,
    async () => patch(owner, (await issue(owner)).id, { ownerId: administrator.user.id }),
  ],
  ['a patch sets another expiry', 400, async () => patch(owner, (await issue(owner)).id, { expiresAt: null })],

  // Secrets that would be shown
  [
    'an editor rotates a project token that can do more than editors',
    403,
    async () => rotate(editor, (await issue(owner, inProject(['projects:write']))).id),
  ],
  [
    "an editor's token rotates such a project token",
    403,
    async () =>
      rotate(
        (await issueAs(editor, { scopes: ['tokens:write'] })).by,
        (await issue(owner, inProject(['projects:write']))).id,
      ),
  ],
  [
    'an owner rotates a project token that an administrator gave tokens:verify',
    403,
    async () => rotate(owner, (await issue(administrator, inProject(['tokens:verify']))).id),
  ],
  ["an administrator rotates another person's token", 403, async () => rotate(administrator, (await issue(owner)).id)],
  ["an administrator issues in another person's name", 400, () => make(administrator, { owner: owner.user.id })],

  // Other people's resources
  [
    "a member changes another person's token",
    404,
    async () => patch(outsider, (await issue(owner)).id, { name: 'mine' }),
  ],
  [
    "a project token reads its creator's personal token",
    404,
    async () => {
      const { by } = await issueAs(owner, inProject(['tokens:read', 'tokens:write']));
      return by.call(`/v1/tokens/${(await issue(owner)).id}`);
    },
  ],
  [
    'an editor becomes owner',
    403,
    () => editor.call(`PUT /v1/projects/${projectId}/members/${editor.user.id}`, { body: { role: 'owner' } }),
  ],
  [
    'a viewer becomes editor',
    403,
    () => viewer.call(`PUT /v1/projects/${projectId}/members/${viewer.user.id}`, { body: { role: 'editor' } }),
  ],
  [
    'an outsider joins a project',
    404,
    () => outsider.call(`PUT /v1/projects/${projectId}/members/${outsider.user.id}`, { body: { role: 'viewer' } }),
  ],
  [
    'a member becomes administrator',
    403,
    () => owner.call(`PATCH /v1/users/${owner.user.id}`, { body: { role: 'admin' } }),
  ],
  [
    'a token with users:write creates an administrator',
    403,
    async () => {
      const { by } = await issueAs(administrator, { scopes: ['users:write'] });
      const body = { email: 'mallory@example.org', name: 'M', role: 'admin', password: 'long enough to be taken' };
      return by.call('POST /v1/users', { body });
    },
  ],
  [
    'a token with users:write promotes a member to administrator',
    403,
    async () => {
      const { by } = await issueAs(administrator, { scopes: ['users:write'] });
      return by.call(`PATCH /v1/users/${outsider.user.id}`, { body: { role: 'admin' } });
    },
  ],
  [
    'a token with users:write resets a password',
    403,
    async () =>
      (await issueAs(administrator, { scopes: ['users:write'] })).by.call(
        `POST /v1/users/${outsider.user.id}/reset-password`,
      ),
  ],

  // Rights that have ended
  [
    'the token of a former administrator reads the audit log',
    403,
    async () => {
      const former = await w.member(undefined, 'admin');
      const { by } = await issueAs(former, { scopes: ['audit:read'] });
      await administrator.call(`PATCH /v1/users/${former.user.id}`, { body: { role: 'member' } });
      return by.call('/v1/audit');
    },
  ],
  [
    'the token of a removed project member issues in the project',
    404,
    async () => {
      const former = await w.member();
      await owner.call(`PUT /v1/projects/${projectId}/members/${former.user.id}`, { body: { role: 'editor' } });
      const { by } = await issueAs(former, { scopes: ['tokens:write'] });
      await owner.call(`DELETE /v1/projects/${projectId}/members/${former.user.id}`);
      return make(by, inProject());
    },
  ],
  [
    'the session of a disabled person is used',
    401,
    async () => {
      const former = await w.member();
      await administrator.call(`PATCH /v1/users/${former.user.id}`, { body: { disabled: true } });
      return former.call('/v1/tokens');
    },
  ],
  [
    'the token of a closed project is used',
    401,
    async () => {
      const closing = await project(owner);
      const { by } = await issueAs(owner, { kind: 'prj', projectId: closing, scopes: ['tokens:read'] });
      await owner.call(`DELETE /v1/projects/${closing}`);
      return by.call('/v1/tokens');
    },
  ],
  [
    'the child of a disabled token is used',
    401,
    async () => {
      const parent = await writer();
      const child = await issueAs(parent.by, {});
      await patch(owner, parent.token.id, { disabled: true });
      return child.by.call('/v1/tokens/self');
    },
  ],

  // Bypasses of authentication and parsing
  [
    'a token bound to addresses claims another address',
    403,
    async () => {
      const { secret } = await issue(owner, { allowedIps: ['192.0.2.1'] });
      const headers = {
        authorization: `Bearer ${secret}`,
        'x-forwarded-for': '192.0.2.1',
        [GATEWAY_PROOF_HEADER]: 'guessed',
      };
      return w.as(headers).call('/v1/tokens/self');
    },
  ],
  [
    'a cookie is used from another site',
    403,
    () =>
      w.as({ cookie: owner.cookie!, origin: 'https://evil.example' }).call('POST /v1/tokens', { body: { name: 'x' } }),
  ],
  [
    'a token is sent in the query',
    400,
    async () => w.as().call('/v1/tokens', { query: { access_token: (await issue(owner)).secret } }),
  ],
  [
    'two tokens are sent at once',
    400,
    async () => w.as({ authorization: `Bearer ${(await writer()).token.secret}, Bearer x` }).call('/v1/tokens/self'),
  ],
  [
    'a metadata name reaches the prototype',
    400,
    () => owner.call('POST /v1/tokens', { raw: '{"name":"x","metadata":{"__proto__":{"a":"b"}}}' }),
  ],
  [
    'a cursor is forged',
    400,
    () => outsider.call('/v1/tokens', { query: { cursor: Buffer.from("9' OR 1=1 --").toString('base64url') } }),
  ],
];

it.each(attempts)('the API rejects a request when %s', async (_, status, attempt) => {
  const response = await attempt();
  expect({ status: response.status, body: response.body }).toMatchObject({ status, body: { status } });
  expect(response.body).not.toHaveProperty('secret');
});

it("an Idempotency-Key never returns another person's token", async () => {
  const headers = { 'idempotency-key': 'a-key-that-both-use' };
  const request = (by: Person) => by.call<IssuedToken>('POST /v1/tokens', { body: { name: 'same' }, headers });
  const [first, second] = [await request(owner), await request(outsider)];
  expect([first.status, second.status]).toEqual([201, 201]);
  expect(second.body.id).not.toBe(first.body.id);
});

it('the last administrator and the last owner of a project cannot be removed', async () => {
  const id = await project(owner);
  expect((await owner.call(`DELETE /v1/projects/${id}/members/${owner.user.id}`)).status).toBe(409);
  const demote = () => administrator.call(`PATCH /v1/users/${administrator.user.id}`, { body: { role: 'member' } });
  expect((await demote()).status).toBe(409);
});

it("a project's tokens stay valid when their creator has left", async () => {
  const creator = await w.member();
  await owner.call(`PUT /v1/projects/${projectId}/members/${creator.user.id}`, { body: { role: 'editor' } });
  const { by } = await issueAs(creator, inProject(['tokens:read']));
  await owner.call(`DELETE /v1/projects/${projectId}/members/${creator.user.id}`);
  await administrator.call(`PATCH /v1/users/${creator.user.id}`, { body: { disabled: true } });
  expect((await by.call('/v1/tokens/self')).status).toBe(200);
});
