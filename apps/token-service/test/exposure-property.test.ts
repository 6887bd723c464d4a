import type { IssuedToken, RevokedToken } from '@latchkey/contracts';
import fc from 'fast-check';
import { type ApiResponse, type Person, type World, world } from './harness.js';

let w: World;
let person: Person;
beforeAll(async () => {
  w = await world();
  person = await w.member();
});
afterAll(() => w.close());

type Kind = 'issue' | 'rotate' | 'rotateSelf' | 'revoke';
interface Operation {
  kind: Kind;
  /** The acting token; null: the person. `by` and `to` are taken modulo the number of tokens. */
  by: number | null;
  to: number;
  overlap: boolean;
}
const operation: fc.Arbitrary<Operation> = fc.record({
  kind: fc.oneof(
    { arbitrary: fc.constant<Kind>('issue'), weight: 3 },
    { arbitrary: fc.constant<Kind>('rotate'), weight: 4 },
    { arbitrary: fc.constant<Kind>('rotateSelf'), weight: 3 },
    { arbitrary: fc.constant<Kind>('revoke'), weight: 1 },
  ),
  by: fc.option(fc.nat(99), { freq: 4 }),
  to: fc.nat(99),
  overlap: fc.boolean(),
});

interface Known {
  token: IssuedToken;
  /** The token that was shown the secret; null: the person. */
  shownTo: string | null;
  ancestors: readonly string[];
}

/** A tree of tokens as callers can build it; rejected operations are not in it. */
class Tree {
  readonly all: Known[] = [];

  static async build(operations: readonly Operation[]): Promise<Tree> {
    const tree = new Tree();
    for (let i = 0; i < 2; i++) await tree.#issue(null);
    for (const operation of operations) await tree.#do(operation);
    return tree;
  }

  at(index: number): Known {
    return this.all[index % this.all.length]!;
  }

  /** The token and all that it was shown, transitively. */
  shownTo(id: string): Set<string> {
    const seen = new Set([id]);
    // A token is issued after the one that is shown it.
    for (const { token, shownTo } of this.all) if (shownTo && seen.has(shownTo)) seen.add(token.id);
    return seen;
  }

  async #do({ kind, by, to, overlap }: Operation): Promise<void> {
    const creator = by === null ? null : this.at(by);
    const old = this.at(to);
    const body = { overlapSeconds: overlap ? 3_600 : 0 };
    const caller = creator ? w.bearer(creator.token.secret) : person;
    if (kind === 'issue') return this.#issue(creator);
    if (kind === 'revoke') {
      // Only a person, or few tokens would be left to check.
      await person.call(`POST /v1/tokens/${old.token.id}/revoke`, { body: { reason: 'superseded' } });
      return;
    }
    const [path, rotated] = kind === 'rotateSelf' && creator ? ['self', creator] : [old.token.id, old];
    this.#shown(await caller.call<IssuedToken>(`POST /v1/tokens/${path}/rotate`, { body }), creator, rotated.ancestors);
  }

  async #issue(creator: Known | null): Promise<void> {
    const caller = creator ? w.bearer(creator.token.secret) : person;
    const body = { name: 'x', scopes: ['tokens:read', 'tokens:write'] };
    const ancestors = creator ? [creator.token.id, ...creator.ancestors] : [];
    this.#shown(await caller.call<IssuedToken>('POST /v1/tokens', { body }), creator, ancestors);
  }

  #shown(response: ApiResponse<IssuedToken>, to: Known | null, ancestors: readonly string[]): void {
    if (response.status === 201) this.all.push({ token: response.body, shownTo: to?.token.id ?? null, ancestors });
    else expect(Math.floor(response.status / 100)).toBe(4);
  }
}

const isAccepted = async (secret: string) => (await w.bearer(secret).call('/v1/tokens/self')).status === 200;

/** Repeats the request until it is effective: how long that takes is not checked here. */
async function expose(id: string): Promise<ApiResponse<RevokedToken>> {
  for (;;) {
    const body = { reason: 'exposed' };
    const response = await person.call<RevokedToken>(`POST /v1/tokens/${id}/revoke`, { body });
    if (response.status !== 202) return response;
  }
}

test('after a token is exposed, no secret that it was ever shown is accepted, and nothing else is revoked but what derives from those', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(operation, { minLength: 4, maxLength: 24 }), fc.nat(99), async (operations, which) => {
      const tree = await Tree.build(operations);
      const exposed = tree.at(which);
      const before = await Promise.all(tree.all.map(({ token }) => isAccepted(token.secret)));
      const response = await expose(exposed.token.id);
      expect(response).toMatchObject({ status: 200, body: { effective: true, pending: [] } });
      const closure = tree.shownTo(exposed.token.id);
      for (const [i, { token, ancestors }] of tree.all.entries()) {
        const isRevoked = closure.has(token.id) || ancestors.some((ancestor) => closure.has(ancestor));
        expect([token.id, await isAccepted(token.secret)]).toEqual([token.id, before[i] && !isRevoked]);
      }
      const { ended } = response.body;
      const revoked = await w.database.query(
        `SELECT count(*)::int AS n FROM tokens WHERE revocation_reason = 'exposed' AND id = ANY ($1)`,
        [tree.all.map(({ token }) => token.id)],
      );
      expect(ended.tokens).toBe(revoked[0]!['n']);
    }),
    { numRuns: 25, endOnFailure: true },
  );
}, 240_000);
