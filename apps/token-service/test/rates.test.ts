import { issue, type Person, type World, world } from './harness.js';

let w: World;
let person: Person;
beforeAll(async () => {
  w = await world();
  person = await w.member();
});
afterAll(() => w.close());

const rateLimit = { limit: 5, windowSeconds: 3_600 };
const scopes = ['tokens:read', 'tokens:write'];
const isUsed = async (secret: string) => (await w.bearer(secret).call('GET /v1/tokens/self')).status === 200;

async function uses(secret: string, times: number): Promise<number> {
  let allowed = 0;
  for (let i = 0; i < times; i++) if (await isUsed(secret)) allowed++;
  return allowed;
}

describe('rate limits', () => {
  it('a token that rotates itself keeps what is left of its rate limit', async () => {
    let token = await issue(person, { rateLimit });
    expect(await uses(token.secret, 2)).toBe(2);
    const rotated = await w.bearer(token.secret).call<typeof token>('POST /v1/tokens/self/rotate', { body: {} });
    expect(rotated.status).toBe(201);
    token = rotated.body;
    expect(await uses(token.secret, 4)).toBe(2);
    // A rotation by its owner does not reset it either.
    const again = await person.call<typeof token>(`POST /v1/tokens/${token.id}/rotate`, { body: {} });
    expect(await uses(again.body.secret, 2)).toBe(0);
  });

  it('uses of all descendants of a token count against its rate limit', async () => {
    const root = await issue(person, { rateLimit, scopes });
    const child = async (secret: string) => {
      const made = await w
        .bearer(secret)
        .call<{ secret: string }>('POST /v1/tokens', { body: { name: 'child', scopes, rateLimit } });
      expect(made.status).toBe(201);
      return made.body.secret;
    };
    const first = await child(root.secret);
    const grandchild = await child(first);
    // Issuing them took two of five: one use of the root, one of the child, which counts for the root too.
    expect(await uses(grandchild, 2)).toBe(2);
    expect(await uses(first, 1)).toBe(1);
    for (const secret of [grandchild, first, root.secret]) expect(await isUsed(secret)).toBe(false);
  });

  it('a use rejected by one rate limit takes nothing from another', async () => {
    const root = await issue(person, { rateLimit, scopes });
    const narrow = { limit: 1, windowSeconds: 3_600 };
    const made = await w
      .bearer(root.secret)
      .call<{ secret: string }>('POST /v1/tokens', { body: { name: 'narrow', scopes, rateLimit: narrow } });
    expect(await uses(made.body.secret, 6)).toBe(1);
    expect(await uses(root.secret, 4)).toBe(3);
  });

  it('a batch counts as one use per message against the rate limit', async () => {
    const token = await issue(person, { rateLimit, scopes });
    const ping = { jsonrpc: '2.0', id: 1, method: 'ping' };
    const post = async (messages: number) => {
      const body = Array.from({ length: messages }, () => ping);
      return (await w.bearer(token.secret).call('POST /mcp', { body })).status;
    };
    expect(await post(3)).toBe(200);
    expect(await post(3)).toBe(429);
    expect(await isUsed(token.secret)).toBe(true);
  });

  it('at most eight rate limits apply to one use', async () => {
    let { secret } = await issue(person, { rateLimit: { limit: 1_000, windowSeconds: 60 }, scopes });
    const make = () =>
      w.bearer(secret).call<{ secret: string }>('POST /v1/tokens', {
        body: { name: 'deeper', scopes, rateLimit: { limit: 1_000, windowSeconds: 60 } },
      });
    for (let depth = 2; depth <= 8; depth++) {
      const made = await make();
      expect(made.status).toBe(201);
      secret = made.body.secret;
    }
    expect(await make()).toMatchObject({ status: 403, body: { detail: expect.stringContaining('8 rate limits') } });
  });
});
