import {
  type Client,
  type ClientDuplexStream,
  credentials,
  loadPackageDefinition,
  Metadata,
  type ServiceError,
  status,
} from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import {
  CALLER_ADDRESS_HEADER,
  GATEWAY_PROOF_HEADER,
  gatewayProof,
  INTERNAL_PROTO_FILE,
  PROTO_FILE,
  passwordEmailContext,
  type User,
} from '@latchkey/contracts';
import { bearer, decryptionKey, decryptWith, firstParty, maintenanceCaller, PROTO_OPTIONS } from '@latchkey/runtime';
import type { TokenService } from '../src/app.js';
import { tokenServiceConfig } from '../src/config.js';
import {
  ADMIN_EMAIL,
  GATEWAY_PROOF_SECRET,
  GATEWAY_RPC_SECRET,
  issue,
  JOBS_KEY,
  JOBS_RPC_SECRET,
  type World,
  world,
} from './harness.js';

const RPC_SECRET = 'one-rpc-secret-for-all-tests-0123456789';
/** All secrets in a gateway's environment. */
const OF_A_GATEWAY = [GATEWAY_RPC_SECRET, GATEWAY_PROOF_SECRET];

let w: World;
const clients: Client[] = [];
beforeAll(async () => {
  w = await world();
});
afterAll(async () => {
  for (const client of clients) client.close();
  await w.close();
});

type Done = (error: ServiceError | null, response: unknown) => void;
type Call = (request: object, metadata: Metadata, done: Done) => void;
type Open = (metadata: Metadata) => ClientDuplexStream<object, unknown>;
/** For a bidirectional stream the first message is the response. */
const firstOf =
  (open: Open): Call =>
  (request, metadata, done) => {
    const call = open(metadata);
    call.on('error', (error: ServiceError) => done(error, undefined));
    call.on('data', (response) => {
      done(null, response);
      call.cancel();
    });
    call.write(request);
  };
interface Method {
  /** `latchkey.v1.Tokens/Verify` */
  name: string;
  call(authorization: string, request?: object): Promise<unknown>;
}

/** Every method of every service of this token-service, read from the proto files. */
function methodsOf(service: TokenService = w.service): Method[] {
  return [PROTO_FILE, INTERNAL_PROTO_FILE].flatMap((file) => {
    const definitions = loadSync(file, PROTO_OPTIONS);
    return Object.entries(definitions).flatMap(([path, definition]) => {
      if ('format' in definition) return []; // a message
      const loaded = path
        .split('.')
        .reduce((at, part) => (at as Record<string, unknown>)[part], loadPackageDefinition(definitions) as unknown);
      const Service = loaded as new (address: string, channel: unknown) => Client & Record<string, Call & Open>;
      const client = new Service(service.rpcAddress, credentials.createInsecure());
      clients.push(client);
      return Object.entries(definition).map(([rpc, { requestStream }]) => ({
        name: `${path}/${rpc}`,
        call: (authorization: string, request: object = {}) =>
          new Promise((resolve, reject) => {
            const metadata = new Metadata();
            if (authorization) metadata.set('authorization', authorization);
            const method: Call & Open = client[rpc]!.bind(client);
            const called: Call = requestStream ? firstOf(method) : method;
            called(request, metadata, (error, response) => (error ? reject(error) : resolve(response)));
          }),
      }));
    });
  });
}
const method = (name: string, service?: TokenService): Method => methodsOf(service).find((m) => m.name === name)!;
const codeOf = (called: Promise<unknown>): Promise<status> =>
  called.then(
    () => status.OK,
    (error: ServiceError) => error.code,
  );

const NEW_TAKE = 'latchkey.internal.v1.Maintenance/TakeLetters';
const OLD_TAKE = 'latchkey.v1.Maintenance/TakeLetters';
const forgot = (email = ADMIN_EMAIL, at?: TokenService) =>
  w.as({}, at).call('POST /v1/session/forgot-password', { body: { email } });
const codesOfAdministrator = async () =>
  (await w.database.query('SELECT count(*)::int AS n FROM password_resets'))[0]!['n'];

describe("with all of a gateway's secrets", () => {
  test("a gateway's secrets open no administrator's account: password emails are refused, and requesting one creates no code", async () => {
    expect((await forgot()).status).toBe(409);
    for (const secret of OF_A_GATEWAY) {
      for (const authorization of [firstParty(secret), bearer(secret)]) {
        for (const path of [NEW_TAKE, OLD_TAKE]) {
          const code = await codeOf(method(path).call(authorization, { limit: 5, keyIds: [JOBS_KEY.id] }));
          expect([status.PERMISSION_DENIED, status.UNAUTHENTICATED]).toContain(code);
        }
      }
    }
    expect((await forgot()).status).toBe(409);
    expect(await codesOfAdministrator()).toBe(0);
  });

  test("a gateway's secret is refused by every maintenance call, under both of its paths", async () => {
    const maintenance = methodsOf().filter(({ name }) => name.includes('.Maintenance/'));
    expect(maintenance).toHaveLength(17);
    for (const { name, call } of maintenance)
      expect([name, await codeOf(call(firstParty(GATEWAY_RPC_SECRET), { limit: 1 }))]).toEqual([
        name,
        status.PERMISSION_DENIED,
      ]);
  });
});

describe('access to every gRPC method', () => {
  const both = (code: status): [status, status] => [code, code];
  test.each<[string, () => Promise<string>, status, status]>([
    // The caller; then the status from the methods of Tokens, and of Maintenance. OK means admitted.
    ['a gateway', async () => firstParty(GATEWAY_RPC_SECRET), status.OK, status.PERMISSION_DENIED],
    ['jobs', async () => firstParty(JOBS_RPC_SECRET), status.PERMISSION_DENIED, status.OK],
    ['a verifying token', () => tokenWith('tokens:verify'), status.OK, status.PERMISSION_DENIED],
    ['another token', () => tokenWith('tokens:read'), status.PERMISSION_DENIED, status.PERMISSION_DENIED],
    ['the proof of a gateway', async () => firstParty(GATEWAY_PROOF_SECRET), ...both(status.UNAUTHENTICATED)],
    ['a secret as Bearer', async () => bearer(JOBS_RPC_SECRET), ...both(status.UNAUTHENTICATED)],
    ['an anonymous caller', async () => '', ...both(status.UNAUTHENTICATED)],
  ])('gRPC admits %s to its own methods and to no others', async (_who, authorizationOf, ofTokens, ofMaintenance) => {
    const authorization = await authorizationOf();
    for (const { name, call } of methodsOf()) {
      const expected = name.includes('.Tokens/') ? ofTokens : ofMaintenance;
      const code = await codeOf(call(authorization));
      // When admitted, an empty request can succeed or be invalid.
      const isAdmitted = code !== status.PERMISSION_DENIED && code !== status.UNAUTHENTICATED;
      expect([name, isAdmitted ? status.OK : code]).toEqual([name, expected]);
    }
  });

  async function tokenWith(scope: string): Promise<string> {
    return bearer((await issue(await w.signIn(), { scopes: [scope] })).secret);
  }
});

describe('a code in a password email', () => {
  const take = (service: TokenService, keyIds: string[], path = NEW_TAKE) =>
    method(path, service).call(firstParty(JOBS_RPC_SECRET), { limit: 10, keyIds });

  test('a password code goes to jobs alone: encrypted to its key, and bound to its email and address', async () => {
    const own = await w.another();
    const { user } = await w.member();
    await take(own, [JOBS_KEY.id]);
    expect((await forgot(user.email, own)).status).toBe(202);
    const { letters } = (await take(own, ['another', JOBS_KEY.id])) as {
      letters: { id: string; kind: 'reset'; email: string; encryptedCode: Buffer; expiresAt: string }[];
    };
    const sent = letters.find(({ email }) => email === user.email)!;
    const code = decryptWith(JOBS_KEY, sent.encryptedCode, passwordEmailContext(sent))!;
    expect(code).toMatch(/^[A-Z2-7]{32}$/);
    expect(JSON.stringify(letters)).not.toContain(code);
    expect(
      decryptWith(JOBS_KEY, sent.encryptedCode, passwordEmailContext({ ...sent, email: 'thief@example.org' })),
    ).toBe(null);
    expect(decryptWith(decryptionKey('x'.repeat(32)), sent.encryptedCode, passwordEmailContext(sent))).toBe(null);
  });

  test.each<[string, Record<string, string>, string[], string, RegExp]>([
    [
      'no key is configured',
      { JOBS_SEALING_PUBLIC_KEY: '' },
      [JOBS_KEY.id],
      NEW_TAKE,
      /JOBS_SEALING_PUBLIC_KEY is not/,
    ],
    ['jobs has another key', {}, [decryptionKey('y'.repeat(32)).id], NEW_TAKE, /JOBS_SEALING_KEY does not belong/],
    ['jobs is of the previous version', {}, [], OLD_TAKE, /older than 0\.2/],
  ])(
    'no password code is sent when %s: the error says why, and no code is created',
    async (_when, env, keyIds, path, why) => {
      await using fresh = await disposable(env);
      const called = take(fresh.service, keyIds, path);
      await expect(called).rejects.toMatchObject({
        code: status.FAILED_PRECONDITION,
        details: expect.stringMatching(why),
      });
      const requested = await fresh.as().call('POST /v1/session/forgot-password', { body: { email: ADMIN_EMAIL } });
      expect(requested.status).toBe(409);
      expect(await fresh.database.query('SELECT 1 FROM password_resets')).toEqual([]);
    },
  );
});

test('the audit event of a change over RPC names its caller', async () => {
  const admin = await w.signIn();
  const token = await issue(admin, { expiresInSeconds: 1 });
  await w.database.query("UPDATE tokens SET expires_at = now() - interval '1 minute' WHERE id = $1", [token.id]);
  const jobs = maintenanceCaller({ address: w.service.rpcAddress, authorization: firstParty(JOBS_RPC_SECRET) });
  try {
    while ((await jobs.expireDue({ limit: 100 })).done > 0);
  } finally {
    jobs.close();
  }
  const { body } = await admin.call<{ items: unknown[] }>(`/v1/audit?tokenId=${token.id}&action=token.expired`);
  expect(body.items).toMatchObject([
    { actor: { type: 'system' }, details: { caller: 'jobs' }, ip: '127.0.0.1', requestId: expect.any(String) },
  ]);
});

describe('gateway proofs', () => {
  const addressSeen = async (proof: string, service?: TokenService) => {
    const bound = await issue(await w.signIn(), { allowedIps: ['203.0.113.9'] });
    const headers = { [CALLER_ADDRESS_HEADER]: '203.0.113.9', [GATEWAY_PROOF_HEADER]: proof };
    const { status: code } = await w
      .as({ ...headers, authorization: bearer(bound.secret) }, service)
      .call('/v1/tokens/self');
    return code === 200 ? 'the forwarded one' : "the sender's";
  };

  test('a gateway proof needs its own secret: the secrets for gRPC prove nothing', async () => {
    expect(await addressSeen(gatewayProof(GATEWAY_PROOF_SECRET))).toBe('the forwarded one');
    for (const secret of [GATEWAY_RPC_SECRET, JOBS_RPC_SECRET])
      expect(await addressSeen(gatewayProof(secret))).toBe("the sender's");
    expect(w.logs()).toContain('a gateway proof was not accepted');
  });

  test('gateway proofs and gRPC callers are accepted with the current and the previous secret', async () => {
    const next = (name: string) => `next-${name}-for-tests-0123456789abcdef`;
    const service = await w.another({
      GATEWAY_PROOF_SECRET: `${next('proof')}, ${GATEWAY_PROOF_SECRET}`,
      GATEWAY_RPC_SECRET: `${next('gateway')},${GATEWAY_RPC_SECRET}`,
      JOBS_RPC_SECRET: `${next('jobs')},${JOBS_RPC_SECRET}`,
    });
    for (const secret of [next('proof'), GATEWAY_PROOF_SECRET])
      expect(await addressSeen(gatewayProof(secret), service)).toBe('the forwarded one');
    for (const secret of [next('gateway'), GATEWAY_RPC_SECRET])
      expect(await codeOf(method('latchkey.v1.Tokens/Verify', service).call(firstParty(secret)))).toBe(status.OK);
    for (const secret of [next('jobs'), JOBS_RPC_SECRET]) {
      const call = method('latchkey.internal.v1.Maintenance/Prune', service).call(firstParty(secret), { limit: 1 });
      expect(await codeOf(call)).toBe(status.OK);
    }
    const both = `${next('jobs')},${JOBS_RPC_SECRET}`;
    expect(await codeOf(method(NEW_TAKE, service).call(firstParty(both)))).toBe(status.UNAUTHENTICATED);
  });
});

describe('the RPC_SECRET of the previous version', () => {
  const bare = { GATEWAY_RPC_SECRET: '', JOBS_RPC_SECRET: '', GATEWAY_PROOF_SECRET: '' };

  test('RPC_SECRET replaces all three secrets for one version, and sends no password code in clear', async () => {
    await using old = await disposable({ ...bare, RPC_SECRET });
    const call = (path: string, request = {}) => method(path, old.service).call(firstParty(RPC_SECRET), request);
    expect(await codeOf(call('latchkey.v1.Tokens/Verify'))).toBe(status.OK);
    expect(await codeOf(call('latchkey.v1.Maintenance/Prune', { limit: 1 }))).toBe(status.OK);
    expect(await codeOf(call('latchkey.internal.v1.Maintenance/Prune', { limit: 1 }))).toBe(status.OK);
    expect(await codeOf(call(OLD_TAKE, { limit: 5 }))).toBe(status.FAILED_PRECONDITION);
    expect(await codeOf(call(NEW_TAKE, { limit: 5 }))).toBe(status.FAILED_PRECONDITION);
    const through = { [GATEWAY_PROOF_HEADER]: gatewayProof(RPC_SECRET), [CALLER_ADDRESS_HEADER]: '203.0.113.7' };
    const signedIn = await old.as(through).call<{ user: User }>('POST /v1/session', {
      body: { email: ADMIN_EMAIL, password: 'the first administrator' },
    });
    expect(signedIn.status).toBe(200);
    expect(await old.database.query('SELECT ip FROM sessions')).toMatchObject([{ ip: '203.0.113.7' }]);
  });

  const complete = {
    DATABASE_URL: 'postgres://x/x',
    REDIS_URL: 'redis://x',
    TOKEN_PEPPERS: 'p'.repeat(32),
    EVENTS_SECRET: 'e'.repeat(32),
    EVENTS_SIGNING_KEY: 's'.repeat(32),
    USAGE_SECRET: 'u'.repeat(32),
  };
  const [gateway, jobs, proof] = ['g'.repeat(32), 'j'.repeat(32), 'f'.repeat(32)];
  const all = { GATEWAY_RPC_SECRET: gateway, JOBS_RPC_SECRET: jobs, GATEWAY_PROOF_SECRET: proof };

  test.each<[object, RegExp[]]>([
    [{}, [/GATEWAY_RPC_SECRET is required/, /JOBS_RPC_SECRET is required/, /GATEWAY_PROOF_SECRET is required/]],
    [{ ...all, JOBS_RPC_SECRET: '' }, [/JOBS_RPC_SECRET is required/]],
    [{ ...all, JOBS_RPC_SECRET: gateway }, [/GATEWAY_RPC_SECRET and JOBS_RPC_SECRET begin with the same secret/]],
    [{ ...all, JOBS_RPC_SECRET: `${jobs},short` }, [/JOBS_RPC_SECRET: each secret must have at least 32 characters/]],
    [{ RPC_SECRET: `${gateway},${jobs}` }, [/RPC_SECRET holds a comma/]],
    // The holder of one secret must not be able to derive the keys of another.
    [{ ...all, USAGE_SECRET: 'e'.repeat(32) }, [/EVENTS_SECRET and USAGE_SECRET hold the same secret/]],
    [
      { ...all, EVENTS_SIGNING_KEY: `${'s'.repeat(32)},${'u'.repeat(32)}` },
      [/EVENTS_SIGNING_KEY and USAGE_SECRET hold/],
    ],
    [{ ...all, EVENTS_SECRET: jobs }, [/JOBS_RPC_SECRET and EVENTS_SECRET hold the same secret/]],
    [{ ...all, GATEWAY_PROOF_SECRET: `${proof},${'p'.repeat(32)}` }, [/TOKEN_PEPPERS and GATEWAY_PROOF_SECRET hold/]],
    [{ RPC_SECRET: 'u'.repeat(32) }, [/GATEWAY_RPC_SECRET and USAGE_SECRET hold/]],
    [{ ...all, JOBS_SEALING_PUBLIC_KEY: 'A'.repeat(43) }, [/JOBS_SEALING_PUBLIC_KEY: must be an X25519 public key/]],
  ])('a start with %j reports what is wrong, and shows no secret', (env, messages) => {
    const start = () => tokenServiceConfig({ ...complete, ...env });
    for (const message of messages) expect(start).toThrow(message);
    expect(start).not.toThrow(/g{32}|j{32}|e{32}|u{32}|p{32}|short/);
  });

  test.each<[object, RegExp | undefined]>([
    [all, undefined],
    [{ RPC_SECRET }, /stands for GATEWAY_RPC_SECRET, JOBS_RPC_SECRET, GATEWAY_PROOF_SECRET in this version only/],
    [{ ...all, JOBS_RPC_SECRET: '', RPC_SECRET }, /stands for JOBS_RPC_SECRET in this version only/],
    [{ ...all, RPC_SECRET }, /RPC_SECRET is no longer used/],
    [
      { ...all, GATEWAY_RPC_SECRET: `${gateway},${RPC_SECRET}`, JOBS_RPC_SECRET: `${jobs},${RPC_SECRET}` },
      /both accept the same secret/,
    ],
  ])('a start with %j succeeds and warns what to change', (env, message) => {
    const warnings: string[] = [];
    tokenServiceConfig({ ...complete, ...env }, (text) => warnings.push(text));
    expect(warnings).toEqual(message ? [expect.stringMatching(message)] : []);
  });
});

const disposable = async (env: Record<string, string>): Promise<World & AsyncDisposable> => {
  const own = await world({ env });
  return Object.assign(own, { [Symbol.asyncDispose]: () => own.close() });
};
