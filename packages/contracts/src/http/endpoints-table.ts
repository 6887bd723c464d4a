import type { ENDPOINTS, Endpoint } from './endpoints.js';

type Line<E extends Endpoint> = `${E['method']} ${E['path']}${E extends { bodyType: 'form' } ? ' form' : ''}`;

/**
 * Method and path of every call (`form` behind them where the body is a form), without the schemas: what a browser
 * needs at run time. The compiler refuses a line that is missing or differs from ENDPOINTS.
 */
export const ENDPOINTS_TABLE = {
  signIn: 'POST /v1/session',
  whoAmI: 'GET /v1/session',
  signOut: 'DELETE /v1/session',
  issueToken: 'POST /v1/tokens',
  listTokens: 'GET /v1/tokens',
  getSelf: 'GET /v1/tokens/self',
  revokeSelf: 'DELETE /v1/tokens/self',
  rotateSelf: 'POST /v1/tokens/self/rotate',
  revokeExposed: 'POST /v1/tokens/revoke-exposed',
  getToken: 'GET /v1/tokens/{id}',
  patchToken: 'PATCH /v1/tokens/{id}',
  revokeToken: 'POST /v1/tokens/{id}/revoke',
  deleteToken: 'DELETE /v1/tokens/{id}',
  rotateToken: 'POST /v1/tokens/{id}/rotate',
  tokenUsage: 'GET /v1/tokens/{id}/usage',
  listUsers: 'GET /v1/users',
  createUser: 'POST /v1/users',
  patchUser: 'PATCH /v1/users/{id}',
  revokeUserTokens: 'POST /v1/users/{id}/revoke-tokens',
  listProjects: 'GET /v1/projects',
  createProject: 'POST /v1/projects',
  patchProject: 'PATCH /v1/projects/{id}',
  closeProject: 'DELETE /v1/projects/{id}',
  putMember: 'PUT /v1/projects/{id}/members/{userId}',
  removeMember: 'DELETE /v1/projects/{id}/members/{userId}',
  listScopes: 'GET /v1/scopes',
  listAudit: 'GET /v1/audit',
  exportAudit: 'GET /v1/audit/export',
  verifyAudit: 'GET /v1/audit/verify',
  getDenial: 'GET /v1/denials/{requestId}',
  introspect: 'POST /oauth2/introspect form',
  oauthRevoke: 'POST /oauth2/revoke form',
} as const satisfies { [K in keyof typeof ENDPOINTS]: Line<(typeof ENDPOINTS)[K]> };
