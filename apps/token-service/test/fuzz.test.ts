import {
  ENDPOINTS,
  type Endpoint,
  type EndpointName,
  ERROR_CODES,
  ERRORS,
  openApiDocument,
  type Problem,
  problemSchema,
} from '@latchkey/contracts';
import fc from 'fast-check';
import { callsOf, type Request } from './from-openapi.js';
import { issue, type Person, project, type World, world } from './harness.js';

/** `npm run fuzz` sends 20 000. */
const REQUESTS = Number(process.env['FUZZ_REQUESTS'] ?? 500);
/** Operations left out because they end what the other requests depend on. */
const LEFT_OUT: EndpointName[] = [
  'signOut',
  'endSession',
  'endSessions',
  'closeProject',
  'revokeUserTokens',
  'revokeAllTokens',
  'putPolicy',
  'settleRestore',
];
/** In the name of everything that only the owner may see. Its appearance elsewhere is a leak. */
const OWNERS_NAME = 'only for the owner';

let w: World;
let ids: string[];
let people: Record<'administrator' | 'owner' | 'outsider', Person & { user: { id: string } }>;
beforeAll(async () => {
  w = await world();
  const [administrator, owner, outsider] = await Promise.all([
    w.member('Adm', 'admin'),
    w.member('Own'),
    w.member('Out'),
  ]);
  people = { administrator, owner, outsider };
  const projectId = await project(owner, OWNERS_NAME);
  const tokens = await Promise.all([
    issue(owner, { name: OWNERS_NAME }),
    issue(owner, { name: OWNERS_NAME, kind: 'prj', projectId }),
    issue(outsider, {}),
  ]);
  ids = [projectId, await project(outsider, 'open'), ...tokens.map(({ id }) => id), (await w.member('Spare')).user.id];
});
afterAll(() => w.close());

const CALLERS = ['anonymous', 'administrator', 'owner', 'outsider', 'ownerToken', 'outsiderToken'] as const;
type Caller = (typeof CALLERS)[number];

/** Issues a token each time, because requests revoke tokens. */
async function headersOf(caller: Caller): Promise<Record<string, string>> {
  if (caller === 'anonymous') return {};
  if (caller === 'administrator' || caller === 'owner' || caller === 'outsider')
    return { cookie: people[caller].cookie! };
  const scopes = ['tokens:read', 'tokens:write', 'projects:read', 'projects:write'];
  const isOwner = caller === 'ownerToken';
  const { secret } = await issue(people[isOwner ? 'owner' : 'outsider'], {
    name: isOwner ? OWNERS_NAME : 'open',
    scopes,
  });
  return { authorization: `Bearer ${secret}` };
}

/** Statuses that any call can return. */
const ANYWHERE = [400, 404, 405, 413, 415, 431];

async function check(request: Request, caller: Caller, statuses: number[]): Promise<void> {
  const headers = { prefer: 'wait=0', ...request.headers, ...(await headersOf(caller)) };
  const response = await fetch(`${w.service.apiUrl}${request.path}`, {
    method: request.method,
    redirect: 'manual',
    headers,
    ...(request.body !== undefined && { body: request.body }),
    signal: AbortSignal.timeout(30_000),
  });
  const text = await response.text();
  const { status } = response;
  expect(status).not.toBe(500);
  expect([...statuses, ...ANYWHERE]).toContain(status);
  expect(response.headers.get('x-request-id')).toBeTruthy();
  if (status >= 400) {
    expect(response.headers.get('content-type')).toContain('application/problem+json');
    const problem: Problem = problemSchema.parse(JSON.parse(text));
    expect(ERROR_CODES).toContain(problem.code);
    expect(ERRORS[problem.code].status).toBe(status);
    return;
  }
  const endpoint: Endpoint = ENDPOINTS[request.operationId as EndpointName];
  const schema = endpoint.answers[status];
  if (schema && !endpoint.answerTypes) expect(schema.safeParse(JSON.parse(text))).toMatchObject({ success: true });
  if (caller !== 'administrator' && !caller.startsWith('owner')) expect(text).not.toContain(OWNERS_NAME);
}

it(
  `${REQUESTS} requests generated from the OpenAPI document get documented responses, and show no one else's data`,
  async () => {
    const calls = callsOf(openApiDocument(), ids).filter(
      ({ operationId }) => !LEFT_OUT.some((name) => name === operationId),
    );
    const any = fc.oneof(
      ...calls.map(({ requests, statuses }) => fc.tuple(requests, fc.constantFrom(...CALLERS), fc.constant(statuses))),
    );
    await fc.assert(
      fc.asyncProperty(any, ([request, caller, statuses]) => check(request, caller, statuses)),
      { numRuns: REQUESTS, endOnFailure: true },
    );
  },
  60_000 + REQUESTS * 100,
);
