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

describe('a rate limit is a bucket of the token that bears it', () => {
  it('which a token that rotates itself takes along', async () => {
    let token = await issue(person, { rateLimit });
    expect(await uses(token.secret, 2)).toBe(2);
    const rotated = await w.bearer(token.secret).call<typeof token>('POST /v1/tokens/self/rotate', { body: {} });
    expect(rotated.status).toBe(201);
    token = rotated.body;
    expect(await uses(token.secret, 4)).toBe(2);
    // Nor does its owner's own rotation lift it.
    const again = await person.call<typeof token>(`POST /v1/tokens/${token.id}/rotate`, { body: {} });
    expect(await uses(again.body.secret, 2)).toBe(0);
  });

  it('in which the uses of all tokens made with it count, and those of tokens made with these', async () => {
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
    // Making them took two of five: one use of the root, one of the child, which is one of the root's too.
    expect(await uses(grandchild, 2)).toBe(2);
    expect(await uses(first, 1)).toBe(1);
    for (const secret of [grandchild, first, root.secret]) expect(await isUsed(secret)).toBe(false);
  });

  it('of which a use that another bucket refuses takes nothing', async () => {
    const root = await issue(person, { rateLimit, scopes });
    const narrow = { limit: 1, windowSeconds: 3_600 };
    const made = await w
      .bearer(root.secret)
      .call<{ secret: string }>('POST /v1/tokens', { body: { name: 'narrow', scopes, rateLimit: narrow } });
    expect(await uses(made.body.secret, 6)).toBe(1);
    expect(await uses(root.secret, 4)).toBe(3);
  });

  it('and a batch of messages counts as so many uses', async () => {
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

  it('and no more than eight of them bear on one use', async () => {
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
