import type { EndpointName } from './http/endpoints.js';

const tokenId = '019f8a6e-7a10-7c3e-9d51-2f1f0c3b8a01';
const ada = { type: 'user', id: '019f8a6e-7a10-7c3e-9d51-2f1f0c3b8a02', name: 'Ada' };
const project = '019f8a6e-7a10-7c3e-9d51-2f1f0c3b8a03';
const receipt = {
  id: '019f8a6e-7a10-7c3e-9d51-2f1f0c3b8a05',
  confirmedAt: '2026-11-22T09:00:00.012Z',
  elapsedMs: 11,
  verifiers: [{ id: '019f8a6e-7a10-7c3e-9d51-2f1f0c3b8a04', name: 'gateway-1', by: 'ack', ms: 4 }],
};
const token = {
  id: tokenId,
  name: 'nightly build',
  description: '',
  kind: 'pat',
  owner: { ...ada, disabled: false },
  createdBy: ada,
  scopes: ['demo:read'],
  start: 'lk_pat_3xQ7',
  status: 'active',
  createdAt: '2026-11-20T09:00:00.000Z',
  expiresAt: '2027-02-18T09:00:00.000Z',
  lastUsedAt: '2026-11-22T08:59:58.000Z',
  lastUsedIp: '203.0.113.9',
  usageCount: 1204,
  revokedAt: null,
  revokedBy: null,
  revocationReason: null,
  rotatedFrom: null,
  rotatedTo: null,
  allowedIps: ['203.0.113.0/24'],
  rateLimit: { limit: 100, windowSeconds: 60 },
  metadata: { team: 'build' },
  parentId: null,
  receipt: null,
};
const ended = { tokens: 3, successors: 1, descendants: 0, shown: 1 };
const revoked = {
  ...token,
  status: 'revoked',
  revokedAt: '2026-11-22T09:00:00.001Z',
  revokedBy: ada,
  revocationReason: 'exposed',
  receipt,
};
// Recognisable as an example: it matches neither the pattern nor the checksum of a real secret.
const secret = 'lk_pat_<36 characters, shown once>';

/** An example of a body and a response for the most used calls; a test parses each by its schema. */
export const EXAMPLES: { readonly [name in EndpointName]?: { body?: unknown; response?: unknown } } = {
  signIn: {
    body: { email: 'ada@example.org', password: '<your password>' },
    response: {
      user: {
        id: ada.id,
        email: 'ada@example.org',
        name: ada.name,
        role: 'member',
        disabled: false,
        createdAt: '2026-11-01T09:00:00.000Z',
      },
    },
  },
  issueToken: {
    body: {
      name: 'nightly build',
      scopes: ['demo:read'],
      expiresInSeconds: 7_776_000,
      allowedIps: ['203.0.113.0/24'],
      rateLimit: { limit: 100, windowSeconds: 60 },
      metadata: { team: 'build' },
    },
    response: { ...token, lastUsedAt: null, lastUsedIp: null, usageCount: 0, secret },
  },
  listTokens: { response: { items: [token], nextCursor: null } },
  getToken: { response: token },
  getSelf: { response: token },
  patchToken: {
    body: { scopes: ['demo:read'], disabled: false },
    response: { token: { ...token, receipt }, effective: true, receipt, pending: [] },
  },
  revokeToken: {
    body: { reason: 'exposed', comment: 'was in a public log' },
    response: {
      token: revoked,
      effective: true,
      receipt,
      pending: [],
      ended,
      alsoChanged: { items: [], others: 0, audit: `/v1/audit?actor=${revoked.id}` },
    },
  },
  deleteToken: { response: { token: revoked, effective: true, receipt, pending: [], ended } },
  rotateToken: {
    body: { overlapSeconds: 300 },
    response: {
      ...token,
      rotatedFrom: '019f8a6e-7a10-7c3e-9d51-2f1f0c3b8a05',
      secret,
      effective: true,
      receipt,
      pending: [],
    },
  },
  revokeTokens: {
    body: { filter: { owner: 'me', createdBefore: '2026-11-01T00:00:00Z' }, reason: 'policy', expect: 3 },
    response: {
      matched: 3,
      batch: '019f8a6e-7a10-7c3e-9d51-2f1f0c3b8a06',
      ended: { tokens: 4, successors: 0, descendants: 1, shown: 0 },
      effective: true,
      receipt,
      pending: [],
    },
  },
  revokeAllTokens: {
    body: { reason: 'exposed', comment: 'a backup was stolen', confirm: 'revoke everything' },
    response: { effective: true, receipt, pending: [] },
  },
  revokeExposed: { body: { tokens: [secret] }, response: { accepted: 1 } },
  tokenUsage: {
    response: {
      total: 2,
      buckets: [{ hour: '2026-11-22T08:00:00.000Z', route: 'demo', status: 'allowed', count: 2 }],
      callers: [
        {
          ip: '203.0.113.9',
          userAgent: 'curl/8.5.0',
          firstSeen: '2026-11-22T08:01:00.000Z',
          lastSeen: '2026-11-22T08:59:58.000Z',
          count: 2,
        },
      ],
    },
  },
  createUser: { body: { email: 'grace@example.org', name: 'Grace', role: 'member' } },
  patchUser: { body: { disabled: true } },
  createProject: { body: { name: 'shop', description: 'The web shop' } },
  putMember: { body: { role: 'editor' } },
  listScopes: { response: { items: [{ name: 'demo:read', description: 'Read the demo.', grantable: true }] } },
  verifyAudit: { response: { ok: true, events: 4_211, checkpoints: 12, firstBroken: null } },
  settleRestore: {
    body: { choice: 'revoke' },
    response: {
      effective: true,
      receipt,
      pending: [],
      restore: {
        id: '019f8a6e-7a10-7c3e-9d51-2f1f0c3b8a88',
        detectedAt: '2026-11-22T08:50:00.000Z',
        newestEventAt: '2026-11-21T23:59:58.000Z',
        state: 'settled',
        reason: 'no_ledger',
        ledgerReachesTo: null,
        reapplied: 0,
        mustSetPassword: 11,
        sessionsEnded: 14,
        notReapplied: [],
        settledAt: '2026-11-22T09:00:00.000Z',
        choice: 'revoke',
      },
    },
  },
  getReceipt: { response: receipt },
  getDenial: {
    response: {
      requestId: '019f8a6e-7a10-7c3e-9d51-2f1f0c3b8a77',
      at: '2026-11-22T09:00:00.000Z',
      reason: 'expired',
      tokenId,
      route: 'demo',
      method: 'GET',
      ip: '203.0.113.9',
    },
  },
  introspect: {
    body: { token: secret },
    response: { active: true, scope: 'demo:read', token_type: 'Bearer', sub: ada.id, jti: tokenId, client_id: project },
  },
  oauthRevoke: { body: { token: secret } },
};
