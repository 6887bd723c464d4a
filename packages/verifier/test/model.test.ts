import type { InvalidationKind } from '@latchkey/contracts';
import { mint } from '@latchkey/token-format';
import { flushPromises, id, READ, world } from './world.js';

/** Park and Miller's generator: the same run for the same seed. */
function random(seed: number): (below: number) => number {
  let state = (seed % 2147483646) + 1;
  return (below) => {
    state = (state * 48271) % 2147483647;
    return state % below;
  };
}

type World = Awaited<ReturnType<typeof world>>;
type Issued = ReturnType<World['authority']['issue']>;

/** The authority's verdict at this moment, which the verifier's is compared with. */
function truth({ authority, clock }: World, hash: string): string {
  const token = authority.tokens.get(hash);
  if (!token) return 'unknown';
  if (token.denial) return token.denial;
  if (token.expiresAtMs > 0 && clock.wallMs() >= token.expiresAtMs) return 'expired';
  return token.scopes.includes('demo:read') ? 'allowed' : 'insufficient_scope';
}

const RUNS = 60;
const STEPS = 250;

describe('compared with a model that looks every token up', () => {
  it.each(Array.from({ length: RUNS }, (_, seed) => seed))(
    'gives the authority`s verdict once every change has been acknowledged (seed %i)',
    async (seed) => {
      const below = random(seed * 7919 + 1);
      const limits = { entriesMax: [1, 2, 10, 1_000][below(4)]!, missesMax: 1 + below(4) };
      const here = await world({ limits });
      const { authority, clock, verifier, outcome } = here;
      /** A check can wait for a renewal: time passes meanwhile. */
      const decided = async <T>(check: Promise<T>): Promise<T> => {
        let isDecided = false;
        void check.finally(() => {
          isDecided = true;
        });
        await flushPromises();
        for (let i = 0; !isDecided && i < 100; i++) await clock.pass(20);
        return check;
      };
      const pick = <T>(from: readonly T[]): T => from[below(from.length)]!;
      const owners = [id(), id(), id()];
      const projects = [id(), id(), id()];
      const tokens: Issued[] = [];
      const issue = () => {
        const parent = tokens.length && below(3) === 0 ? pick(tokens) : undefined;
        const project = pick(projects);
        tokens.push(
          authority.issue({
            ...(below(4) === 0
              ? { kind: 'prj', ownerType: 'project', ownerId: project, project }
              : { ownerId: pick(owners), grants: below(2) ? [{ project, scopes: ['demo:read'] }] : [] }),
            ancestors: parent ? [parent.snapshot.id, ...parent.snapshot.ancestors] : [],
            expiresAtMs: below(5) === 0 ? clock.wallMs() + 1 + below(60_000) : 0,
          }),
        );
      };
      /** Changes all tokens that the subject affects, then commits one invalidation. */
      const change = async (kind: InvalidationKind, subject: string) => {
        const denial = pick(['', 'revoked', 'disabled']);
        const scopes = pick([['demo:read'], []]);
        for (const [hash, snapshot] of authority.tokens) {
          const touched =
            kind === 'everything' ||
            snapshot.id === subject ||
            snapshot.ancestors.includes(subject) ||
            snapshot.ownerId === subject ||
            snapshot.project === subject ||
            snapshot.grants.some((grant) => grant.project === subject);
          if (touched) authority.tokens.set(hash, { ...snapshot, denial, scopes });
        }
        const invalidation = authority.invalidate(kind, subject, below(2) === 0);
        // At once, unless the verifier does not know the log yet.
        for (let i = 0; !authority.acknowledged.includes(invalidation.id) && i < 100; i++) await clock.pass(20);
        expect(authority.acknowledged).toContain(invalidation.id);
      };
      const unknown = mint('pat');
      issue();
      for (let step = 0; step < STEPS; step++) {
        const what = below(100);
        if (what < 10) issue();
        else if (what < 16) await change('token', pick(tokens).snapshot.id);
        else if (what < 18) await change('owner', pick(owners));
        else if (what < 20) await change('project', pick(projects));
        else if (what < 21) await change('everything', '');
        else if (what < 23) await clock.pass(below(8_000));
        else if (what < 24) clock.suspend(below(15_000));
        else if (what < 25) clock.stepWall(below(20_000) - 5_000);
        else if (what < 26) Object.assign(authority, { logId: id() });
        else if (what < 27) authority.pinnedXid = authority.pinnedXid === undefined ? authority.xid : undefined;
        else if (what < 35) {
          expect(await decided(outcome(unknown))).toBe('unknown');
        } else {
          const { secret, hash } = pick(tokens);
          expect(await decided(outcome(secret))).toBe(truth(here, hash));
        }
        expect(verifier.state().entries).toBeLessThanOrEqual(limits.entriesMax);
        expect(verifier.state().misses).toBeLessThanOrEqual(limits.missesMax);
      }
      // A second check costs no lookup, where nothing was evicted, and gives the same verdict.
      for (const { secret } of tokens.slice(-limits.entriesMax)) await decided(outcome(secret));
      const { fills } = verifier.counters;
      for (const { secret, hash } of tokens.slice(-limits.entriesMax)) {
        const verdict = await verifier.verify(secret, READ);
        expect(verdict.allowed ? 'allowed' : verdict.reason).toBe(truth(here, hash));
      }
      if (verifier.state().leaseHeld && verifier.counters.evictions === 0) expect(verifier.counters.fills).toBe(fills);
    },
  );

  it.each(Array.from({ length: RUNS }, (_, seed) => seed))(
    'accepts nothing in a check begun after an acknowledged revocation, however responses are delayed (seed %i)',
    async (seed) => {
      const below = random(seed * 104729 + 3);
      const { authority, clock, verifier } = await world();
      const tokens = Array.from({ length: 3 }, () => authority.issue());
      authority.holdLookups = true;
      authority.holdRenewals = true;
      const confirmed = new Set<string>();
      const checks: Promise<unknown>[] = [];
      let stale = 0;
      /** Responses that the authority has read and that have not arrived. */
      const inFlight: (() => Promise<void>)[] = [];
      for (let step = 0; step < 200; step++) {
        const what = below(10);
        const token = tokens[below(tokens.length)]!;
        if (what < 4) {
          const mustRefuse = confirmed.has(token.hash);
          const check = Promise.resolve(verifier.verify(token.secret, READ)).then((verdict) => {
            if (verdict.allowed && mustRefuse) stale++;
          });
          checks.push(check);
        } else if (what < 6) {
          const pending = authority.pendingLookups.splice(below(authority.pendingLookups.length + 1), 1)[0];
          if (pending) {
            const response = authority.read(pending.request);
            inFlight.push(() => pending.respond(response));
          }
        } else if (what < 8) {
          await inFlight.splice(below(inFlight.length + 1), 1)[0]?.();
        } else if (what < 9) {
          if (below(2)) await clock.pass(below(2_500));
          const pending = authority.pendingRenewals.shift();
          if (pending && below(3)) await pending.respond(authority.grant(pending.request));
          else if (pending) await pending.fail();
        } else if (below(3) === 0) {
          const { id: invalidation } = authority.revoke(token.hash);
          await flushPromises();
          // The token-service takes this acknowledgement as confirmation.
          if (authority.acknowledged.includes(invalidation)) confirmed.add(token.hash);
        }
        await flushPromises();
      }
      authority.holdLookups = false;
      for (const arrive of inFlight) await arrive();
      for (const pending of authority.pendingLookups) await pending.respond(authority.read(pending.request));
      await Promise.all(checks);
      expect(stale).toBe(0);
    },
  );
});
