import type { IssuedToken, RevokedToken } from '@latchkey/contracts';
import fc from 'fast-check';
import { type Answered, type Person, type World, world } from './harness.js';

let w: World;
let person: Person;
beforeAll(async () => {
  w = await world();
  person = await w.member();
});
afterAll(() => w.close());

type Act = 'issue' | 'rotate' | 'rotateSelf' | 'revoke';
interface Deed {
  act: Act;
  /** Who does it: null is the person. Both are taken modulo the tokens that there are. */
  by: number | null;
  to: number;
  overlap: boolean;
}
const deed: fc.Arbitrary<Deed> = fc.record({
  act: fc.oneof(
    { arbitrary: fc.constant<Act>('issue'), weight: 3 },
    { arbitrary: fc.constant<Act>('rotate'), weight: 4 },
    { arbitrary: fc.constant<Act>('rotateSelf'), weight: 3 },
    { arbitrary: fc.constant<Act>('revoke'), weight: 1 },
  ),
  by: fc.option(fc.nat(99), { freq: 4 }),
  to: fc.nat(99),
  overlap: fc.boolean(),
});

interface Known {
  token: IssuedToken;
  /** The token whose eyes saw the secret; null: the person's. */
  shownTo: string | null;
  ancestors: readonly string[];
}

/** A tree as anybody could have grown it: what was refused is not in it. */
class Tree {
  readonly all: Known[] = [];

  static async grown(deeds: readonly Deed[]): Promise<Tree> {
    const tree = new Tree();
    for (let i = 0; i < 2; i++) await tree.#issue(null);
    for (const deed of deeds) await tree.#do(deed);
    return tree;
  }

  at(index: number): Known {
    return this.all[index % this.all.length]!;
  }

  /** What this token was shown, and what that was shown, and so on. */
  shownTo(id: string): Set<string> {
    const seen = new Set([id]);
    // A token is made after the one that is shown it.
    for (const { token, shownTo } of this.all) if (shownTo && seen.has(shownTo)) seen.add(token.id);
    return seen;
  }

  async #do({ act, by, to, overlap }: Deed): Promise<void> {
    const maker = by === null ? null : this.at(by);
    const old = this.at(to);
    const body = { overlapSeconds: overlap ? 3_600 : 0 };
    const caller = maker ? w.bearer(maker.token.secret) : person;
    if (act === 'issue') return this.#issue(maker);
    if (act === 'revoke') {
      // Only a person, else little is left to look at.
      await person.call(`POST /v1/tokens/${old.token.id}/revoke`, { body: { reason: 'superseded' } });
      return;
    }
    const [path, rotated] = act === 'rotateSelf' && maker ? ['self', maker] : [old.token.id, old];
    this.#shown(await caller.call<IssuedToken>(`POST /v1/tokens/${path}/rotate`, { body }), maker, rotated.ancestors);
  }

  async #issue(maker: Known | null): Promise<void> {
    const caller = maker ? w.bearer(maker.token.secret) : person;
    const body = { name: 'x', scopes: ['tokens:read', 'tokens:write'] };
    const ancestors = maker ? [maker.token.id, ...maker.ancestors] : [];
    this.#shown(await caller.call<IssuedToken>('POST /v1/tokens', { body }), maker, ancestors);
  }

  #shown(answer: Answered<IssuedToken>, to: Known | null, ancestors: readonly string[]): void {
    if (answer.status === 201) this.all.push({ token: answer.body, shownTo: to?.token.id ?? null, ancestors });
    else expect(Math.floor(answer.status / 100)).toBe(4);
  }
}

const isAccepted = async (secret: string) => (await w.bearer(secret).call('/v1/tokens/self')).status === 200;

/** Sent again until it is effective: how long that takes on a busy machine is not what is looked at here. */
async function expose(id: string): Promise<Answered<RevokedToken>> {
  for (;;) {
    const body = { reason: 'exposed' };
    const answer = await person.call<RevokedToken>(`POST /v1/tokens/${id}/revoke`, { body });
    if (answer.status !== 202) return answer;
  }
}

test('of one token exposed, nothing it was ever shown is accepted, and nothing else is ended but what derives from that', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(deed, { minLength: 4, maxLength: 24 }), fc.nat(99), async (deeds, which) => {
      const tree = await Tree.grown(deeds);
      const exposed = tree.at(which);
      const before = await Promise.all(tree.all.map(({ token }) => isAccepted(token.secret)));
      const answer = await expose(exposed.token.id);
      expect(answer).toMatchObject({ status: 200, body: { effective: true, pending: [] } });
      const closure = tree.shownTo(exposed.token.id);
      for (const [i, { token, ancestors }] of tree.all.entries()) {
        const isOver = closure.has(token.id) || ancestors.some((above) => closure.has(above));
        expect([token.id, await isAccepted(token.secret)]).toEqual([token.id, before[i] && !isOver]);
      }
      const { ended } = answer.body;
      const revoked = await w.database.query(
        `SELECT count(*)::int AS n FROM tokens WHERE revocation_reason = 'exposed' AND id = ANY ($1)`,
        [tree.all.map(({ token }) => token.id)],
      );
      expect(ended.tokens).toBe(revoked[0]!['n']);
    }),
    { numRuns: 25, endOnFailure: true },
  );
}, 240_000);
