import { status } from '@grpc/grpc-js';
import { jest } from '@jest/globals';
import { bearer, firstParty, tokensCaller } from '@latchkey/runtime';
import { SnapshotService } from '../src/verification/index.js';
import { GATEWAY_RPC_SECRET, issue, type Person, type World, world } from './harness.js';

let w: World;
let admin: Person;
const callers: { close(): void }[] = [];
beforeAll(async () => {
  w = await world();
  admin = await w.signIn();
  // As while a restore is held: what was created before is not accepted.
  await w.database.query(`UPDATE invalidation_log SET restored_before = '2001-01-01'`);
});
afterAll(async () => {
  for (const caller of callers) caller.close();
  await w.close();
});

/** A token of the administrator, from before the restore. */
async function fromBefore(scopes: string[] = ['tokens:read', 'tokens:verify']) {
  const token = await issue(admin, { scopes });
  await w.database.query(`UPDATE tokens SET created_at = '2000-01-01' WHERE id = $1`, [token.id]);
  return token;
}
const rpc = (authorization: string) => {
  const caller = tokensCaller({ address: w.service.rpcAddress, authorization, timeoutMs: 10_000 });
  callers.push(caller);
  return caller;
};
const form = (token: string) => ({
  raw: new URLSearchParams({ token }).toString(),
  headers: { 'content-type': 'application/x-www-form-urlencoded' },
});
const REQUEST = { scopes: [], project: '', ip: '', route: '', userAgent: '' };

describe('while a restore is unsettled, a token from before it', () => {
  it.each([
    ['GET /v1/tokens/self', {}],
    ['POST /oauth2/introspect', form('x')],
    ['POST /oauth2/revoke', form('x')],
    ['POST /mcp', { body: { jsonrpc: '2.0', id: 1, method: 'ping' } }],
  ])('gets 503 with Retry-After and no challenge from %s', async (target, options) => {
    const { secret } = await fromBefore();
    const response = await w.bearer(secret).call<{ code: string }>(target, options);
    expect([response.status, response.body.code]).toEqual([503, 'restored']);
    expect([response.headers.get('retry-after'), response.headers.get('www-authenticate')]).toEqual(['1', null]);
  });

  it('is introspected as 503, never as inactive', async () => {
    const { secret } = await fromBefore();
    const response = await admin.call<{ code: string }>('POST /oauth2/introspect', form(secret));
    expect([response.status, response.body.code]).toEqual([503, 'restored']);
  });

  it('can be revoked by a caller that presents it (RFC 7009)', async () => {
    const { id, secret } = await fromBefore();
    expect((await admin.call('POST /oauth2/revoke', form(secret))).status).toBe(200);
    expect((await admin.call<{ status: string }>(`/v1/tokens/${id}`)).body.status).toBe('revoked');
  });

  it('is denied as restored by Verify, and as a caller over gRPC is told UNAVAILABLE', async () => {
    const { id, secret } = await fromBefore();
    expect(await rpc(firstParty(GATEWAY_RPC_SECRET)).verify({ ...REQUEST, token: secret })).toMatchObject({
      allowed: false,
      denial: 'restored',
      tokenId: id,
      requestId: expect.any(String),
    });
    await expect(rpc(bearer(secret)).verify({ ...REQUEST, token: secret })).rejects.toMatchObject({
      code: status.UNAVAILABLE,
    });
  });

  it('changes nothing in a request that had been admitted before the restore was noticed', async () => {
    const { id, secret } = await issue(admin, { scopes: ['tokens:read', 'tokens:write'] });
    // No one can place the moment from outside: here the snapshot says so from the second reading on.
    let readings = 0;
    const { named } = SnapshotService.prototype;
    const spy = jest.spyOn(SnapshotService.prototype, 'named').mockImplementation(function (
      this: SnapshotService,
      row,
    ) {
      const found = named.call(this, row);
      if (row.id !== id || readings++ === 0) return found;
      return { ...found, snapshot: { ...found.snapshot, denial: 'restored' } };
    });
    const call = (name: string, args: object) => ({
      jsonrpc: '2.0',
      id: name,
      method: 'tools/call',
      params: { name, arguments: args },
    });
    const alone = await w.bearer(secret).call<{ code: string }>('POST /mcp', {
      body: call('create_token', { name: 'made' }),
    });
    expect([alone.status, alone.body.code]).toEqual([503, 'restored']);
    readings = 0;
    const batch = await w.bearer(secret).call<object[]>('POST /mcp', {
      body: [call('whoami', {}), call('list_tokens', {})],
    });
    expect(batch.body).toEqual([
      expect.objectContaining({ id: 'whoami', result: expect.anything() }),
      { jsonrpc: '2.0', id: 'list_tokens', error: { code: -32600, message: expect.stringContaining('restore') } },
    ]);
    spy.mockRestore();
  });
});
