import { ENDPOINTS, type EndpointName } from '@latchkey/contracts';
import { type ApiResponse, issue, type Person, project, type World, world } from './harness.js';

type Member = Awaited<ReturnType<World['member']>>;
let w: World;
let admin: Person;
let person: Member;
beforeAll(async () => {
  w = await world();
  admin = await w.signIn();
  person = await w.member();
});
afterAll(() => w.close());

/** A request that narrows rights, each time those of a new person, token or project. */
type Narrows = () => Promise<{ by: Person; path?: Record<string, string>; body?: object; raw?: string }>;
const onToken = (body?: object) => async () => ({
  by: person as Person,
  path: { id: (await issue(person)).id },
  ...(body && { body }),
});
const onSelf = (body?: object) => async () => ({ by: w.bearer((await issue(person)).secret), ...(body && { body }) });
async function membership() {
  const id = await project(person);
  const userId = (await w.member()).user.id;
  await person.call(`PUT /v1/projects/${id}/members/${userId}`, { body: { role: 'editor' } });
  return { id, userId };
}

/**
 * Every call that changes something: a request that takes rights away, so that its response says whether it is effective;
 * or why it need not. Enter each new call here.
 */
const CALLS: Record<Exclude<EndpointName, Reading>, Narrows | string> = {
  patchToken: onToken({ disabled: true }),
  revokeToken: onToken({ reason: 'exposed' }),
  deleteToken: onToken(),
  rotateToken: onToken({ overlapSeconds: 0 }),
  rotateSelf: onSelf({ overlapSeconds: 600 }),
  revokeSelf: onSelf(),
  revokeTokens: async () => {
    const by = await w.member();
    await issue(by);
    return { by, body: { filter: { owner: 'me' }, reason: 'policy' } };
  },
  revokeAllTokens: async () => ({ by: admin, body: { reason: 'policy', confirm: 'revoke everything' } }),
  patchUser: async () => ({ by: admin, path: { id: (await w.member()).user.id }, body: { disabled: true } }),
  revokeUserTokens: async () => {
    const victim = await w.member();
    await issue(victim);
    return { by: admin, path: { id: victim.user.id }, body: {} };
  },
  closeProject: async () => ({ by: person, path: { id: await project(person) } }),
  putMember: async () => ({ by: person, path: await membership(), body: { role: 'viewer' } }),
  removeMember: async () => ({ by: person, path: await membership() }),

  oauthRevoke: 'RFC 7009 has no body for it: 200 when it is effective and 503 until then (oauth.test.ts)',
  revokeExposed: 'returns at once for every caller, and shows nothing about the tokens (oauth.test.ts)',
  importTokens: 'adds tokens, and returns when no verifier caches them as unknown',
  issueToken: 'adds a token',
  createUser: 'adds a person',
  createProject: 'adds a project',
  patchProject: 'changes texts',
  putPolicy: 'applies to what is issued or changed from then on',
  putNoticeChoices: 'touches no right',
  settleRestore: 'needs a restored database (restore.test.ts)',
  endVerifier: 'takes no right from a token: it returns when the lease lapses',
  signIn: 'adds a session',
  signOut: 'ends sessions, which are read from PostgreSQL for every request',
  endSession: 'ends sessions',
  endSessions: 'ends sessions',
  changePassword: 'ends sessions',
  setPassword: 'ends sessions',
  forgotPassword: 'touches no right',
  resetPassword: 'touches no right before the code is used',
  startSecondFactor: 'touches no right',
  confirmSecondFactor: 'touches no right that verifiers check',
  removeSecondFactor: 'touches no right that verifiers check',
  makeRecoveryCodes: 'touches no right that verifiers check',
  resetSecondFactor: 'touches no right that verifiers check',
  introspect: 'reads',
};
type Reading = {
  [K in EndpointName]: (typeof ENDPOINTS)[K]['method'] extends 'GET' ? K : never;
}[EndpointName];
const callsThatNarrow = Object.entries(CALLS).filter(
  (entry): entry is [EndpointName, Narrows] => typeof entry[1] !== 'string',
);

const unresponsive = () =>
  w.database.query(
    `INSERT INTO leases (verifier_id, name, caller, renewal, lease_ms, renewed_at)
     VALUES (gen_random_uuid(), 'unresponsive', 'test', pg_current_xact_id(), 1000, now())`,
  );

test('the table lists every call that changes something, and the contract of each that narrows rights returns `effective`', () => {
  const changing = Object.entries(ENDPOINTS).filter(([, { method }]) => method !== 'GET');
  expect(Object.keys(CALLS).sort()).toEqual(changing.map(([name]) => name).sort());
  const returnsEffect = changing.filter(([, { answers }]) =>
    Object.values(answers).some((schema) => 'effective' in ((schema as { shape?: object } | null)?.shape ?? {})),
  );
  const driven = returnsEffect.map(([name]) => name).filter((name) => name !== 'settleRestore');
  expect(driven.sort()).toEqual(callsThatNarrow.map(([name]) => name).sort());
});

describe.each(callsThatNarrow)('%s', (name, narrows) => {
  const { method, path: template } = ENDPOINTS[name];
  const send = async (headers: Record<string, string>): Promise<ApiResponse> => {
    const { by, path = {}, body } = await narrows();
    const target = template.replace(/\{(\w+)\}/g, (_, key: string) => path[key]!);
    await unresponsive();
    return by.call(`${method} ${target}`, { headers, ...(body && { body }) });
  };
  afterEach(() => w.database.query('DELETE FROM leases'));
  const isIssuing = 201 in ENDPOINTS[name].answers;

  test('a call that narrows rights returns a receipt once every verifier has dropped the old state', async () => {
    const response = await send({});
    expect(response).toMatchObject({
      status: isIssuing ? 201 : 200,
      body: { effective: true, receipt: { verifiers: [{ name: 'unresponsive', by: 'lease' }] }, pending: [] },
    });
  });

  test('a call that narrows rights names the pending verifiers to a caller that does not wait', async () => {
    const response = await send({ prefer: 'wait=0' });
    expect(response).toMatchObject({
      status: isIssuing ? 201 : 202,
      body: { effective: false, receipt: null, pending: [{ name: 'unresponsive' }] },
    });
  });
});
