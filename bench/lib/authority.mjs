/** The token-service's RPC endpoint with tokens in memory: enough for a verifier to take a lease and look tokens up. */
import { Server, ServerCredentials } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { feedSigner, PROTO_FILE } from '@latchkey/contracts';
import { newId, PROTO_OPTIONS } from '@latchkey/runtime';
import { hashSecret, mint } from '@latchkey/token-format';

const signer = feedSigner(Buffer.from('the signing key of the benchmarks'));
const key = Buffer.alloc(32, 1);

/**
 * @returns {Promise<{address: string, issue(scopes: string[]): {secret: string, id: string, owner: string}, close(): void}>}
 */
export async function startAuthority() {
  const tokens = new Map();
  const [log, verifierId] = [newId(), newId()];
  const server = new Server();
  server.addService(loadSync(PROTO_FILE, PROTO_OPTIONS)['latchkey.v1.Tokens'], {
    Verify: (_call, done) => done(new Error('not offered')),
    VerifyBatch: (_call, done) => done(new Error('not offered')),
    Lookup: ({ request }, done) => {
      const token = tokens.get(request.hash) ?? null;
      done(null, { known: token !== null, token });
    },
    Renew: ({ request }, done) =>
      done(null, {
        leaseMs: 10_000,
        cursor: { log, xid: '100' },
        reset: request.cursor?.log !== log,
        invalidations: [],
        ackKey: key,
        usageKey: key,
        feedKeys: [signer.publicKey],
        verifierId,
        caller: 'first-party',
      }),
    Release: (_call, done) => done(null, { released: true }),
  });
  const port = await new Promise((resolve, reject) => {
    const bound = (error, taken) => (error ? reject(error) : resolve(taken));
    server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), bound);
  });
  return {
    address: `127.0.0.1:${port}`,
    issue(scopes) {
      const token = mint('pat');
      const owner = { kind: 'pat', ownerType: 'user', ownerId: newId(), project: '', denial: '', expiresAtMs: 0 };
      const rights = { scopes, allProjects: false, grants: [], ancestors: [], allowedIps: [], rateLimit: null };
      const id = newId();
      tokens.set(hashSecret(token), { id, ...owner, ...rights });
      return { secret: token, id, owner: `user:${owner.ownerId}` };
    },
    close: () => server.forceShutdown(),
  };
}
