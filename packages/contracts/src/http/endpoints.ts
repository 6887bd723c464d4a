import { z } from 'zod';
import type { ErrorCode } from '../errors.js';
import {
  auditExportQuery,
  auditPage,
  auditQuery,
  chainStateSchema,
  denialParams,
  denialSchema,
  introspectBody,
  introspectionSchema,
} from './audit.js';
import { idParams } from './common.js';
import {
  createProjectBody,
  createUserBody,
  listQuery,
  memberParams,
  patchProjectBody,
  patchUserBody,
  projectEffectSchema,
  projectPage,
  projectSchema,
  putMemberBody,
  scopeListSchema,
  sessionSchema,
  signInBody,
  userEffectSchema,
  userPage,
  userSchema,
} from './people.js';
import {
  exposedTokensBody,
  issuedTokenSchema,
  issueTokenBody,
  listTokensQuery,
  patchTokenBody,
  revokeTokenBody,
  rotateTokenBody,
  tokenEffectSchema,
  tokenPage,
  tokenSchema,
  usageQuery,
  usageSchema,
} from './tokens.js';

/** One call of the management API. The OpenAPI document, the client and the permission matrix are made from this. */
export interface Endpoint {
  method: 'GET' | 'POST' | 'PATCH' | 'PUT' | 'DELETE';
  /** With `{name}` for path parameters. */
  path: string;
  summary: string;
  tag: 'Tokens' | 'People' | 'Projects' | 'Sessions' | 'Audit' | 'OAuth 2.0';
  /** The scope a Bearer token needs; `self`: any token, about itself; `none`: no credentials at all; `signed-in`: any caller. */
  scope: string | 'self' | 'signed-in' | 'none';
  params?: z.ZodType;
  query?: z.ZodType;
  body?: z.ZodType;
  /** `form`: application/x-www-form-urlencoded. JSON otherwise. */
  bodyType?: 'form';
  /** The body may be left out. */
  bodyOptional?: boolean;
  /** Answers by status; null: no body. */
  answers: Record<number, z.ZodType | null>;
  /** Media types of the answers; application/json otherwise. */
  answerTypes?: readonly string[];
  /** Codes beyond those every call can answer. */
  errors?: readonly ErrorCode[];
  /** Request headers with a meaning. */
  headers?: readonly ('Idempotency-Key' | 'Prefer')[];
}

const narrowing = <S extends z.ZodType>(schema: S) => ({
  answers: { 200: schema, 202: schema },
  headers: ['Prefer'] as const,
});

export const ENDPOINTS = {
  signIn: {
    method: 'POST',
    path: '/v1/session',
    summary: 'Sign in',
    tag: 'Sessions',
    scope: 'none',
    body: signInBody,
    answers: { 200: sessionSchema },
    errors: ['sign_in_failed', 'second_factor_required', 'rate_limited'],
  },
  whoAmI: {
    method: 'GET',
    path: '/v1/session',
    summary: 'Who is signed in',
    tag: 'Sessions',
    scope: 'signed-in',
    answers: { 200: sessionSchema },
  },
  signOut: {
    method: 'DELETE',
    path: '/v1/session',
    summary: 'Sign out',
    tag: 'Sessions',
    scope: 'signed-in',
    answers: { 204: null },
  },

  issueToken: {
    method: 'POST',
    path: '/v1/tokens',
    summary: 'Issue a token',
    tag: 'Tokens',
    scope: 'tokens:write',
    body: issueTokenBody,
    answers: { 201: issuedTokenSchema, 200: tokenSchema },
    errors: ['idempotency_conflict', 'conflict'],
    headers: ['Idempotency-Key'],
  },
  listTokens: {
    method: 'GET',
    path: '/v1/tokens',
    summary: 'List tokens',
    tag: 'Tokens',
    scope: 'tokens:read',
    query: listTokensQuery,
    answers: { 200: tokenPage },
  },
  getSelf: {
    method: 'GET',
    path: '/v1/tokens/self',
    summary: 'The token that carries the request',
    tag: 'Tokens',
    scope: 'self',
    answers: { 200: tokenSchema },
  },
  revokeSelf: {
    method: 'DELETE',
    path: '/v1/tokens/self',
    summary: 'Revoke the token that carries the request',
    tag: 'Tokens',
    scope: 'self',
    ...narrowing(tokenEffectSchema),
  },
  rotateSelf: {
    method: 'POST',
    path: '/v1/tokens/self/rotate',
    summary: 'Rotate the token that carries the request',
    tag: 'Tokens',
    scope: 'self',
    body: rotateTokenBody,
    bodyOptional: true,
    answers: { 201: issuedTokenSchema },
    errors: ['conflict'],
  },
  revokeExposed: {
    method: 'POST',
    path: '/v1/tokens/revoke-exposed',
    summary: 'Revoke tokens that have leaked; holding them is the proof',
    tag: 'Tokens',
    scope: 'none',
    body: exposedTokensBody,
    answers: { 202: z.object({ accepted: z.int().meta({ description: 'how many were read, whether real or not' }) }) },
    errors: ['rate_limited'],
  },
  getToken: {
    method: 'GET',
    path: '/v1/tokens/{id}',
    summary: 'A token',
    tag: 'Tokens',
    scope: 'tokens:read',
    params: idParams,
    answers: { 200: tokenSchema },
  },
  patchToken: {
    method: 'PATCH',
    path: '/v1/tokens/{id}',
    summary: 'Change a token',
    tag: 'Tokens',
    scope: 'tokens:write',
    params: idParams,
    body: patchTokenBody,
    ...narrowing(tokenEffectSchema),
    errors: ['conflict'],
  },
  revokeToken: {
    method: 'POST',
    path: '/v1/tokens/{id}/revoke',
    summary: 'Revoke a token',
    tag: 'Tokens',
    scope: 'tokens:write',
    params: idParams,
    body: revokeTokenBody,
    bodyOptional: true,
    ...narrowing(tokenEffectSchema),
  },
  deleteToken: {
    method: 'DELETE',
    path: '/v1/tokens/{id}',
    summary: 'Revoke a token',
    tag: 'Tokens',
    scope: 'tokens:write',
    params: idParams,
    ...narrowing(tokenEffectSchema),
  },
  rotateToken: {
    method: 'POST',
    path: '/v1/tokens/{id}/rotate',
    summary: 'Issue a successor and end this token',
    tag: 'Tokens',
    scope: 'tokens:write',
    params: idParams,
    body: rotateTokenBody,
    bodyOptional: true,
    answers: { 201: issuedTokenSchema },
    errors: ['conflict'],
  },
  tokenUsage: {
    method: 'GET',
    path: '/v1/tokens/{id}/usage',
    summary: 'How a token was used',
    tag: 'Tokens',
    scope: 'tokens:read',
    params: idParams,
    query: usageQuery,
    answers: { 200: usageSchema },
  },

  listUsers: {
    method: 'GET',
    path: '/v1/users',
    summary: 'List people',
    tag: 'People',
    scope: 'users:read',
    query: listQuery,
    answers: { 200: userPage },
  },
  createUser: {
    method: 'POST',
    path: '/v1/users',
    summary: 'Add a person',
    tag: 'People',
    scope: 'users:write',
    body: createUserBody,
    answers: { 201: userSchema },
    errors: ['conflict'],
  },
  patchUser: {
    method: 'PATCH',
    path: '/v1/users/{id}',
    summary: 'Change a person',
    tag: 'People',
    scope: 'users:write',
    params: idParams,
    body: patchUserBody,
    ...narrowing(userEffectSchema),
    errors: ['conflict'],
  },
  revokeUserTokens: {
    method: 'POST',
    path: '/v1/users/{id}/revoke-tokens',
    summary: "Revoke all of a person's tokens",
    tag: 'People',
    scope: 'users:write',
    params: idParams,
    body: revokeTokenBody,
    bodyOptional: true,
    ...narrowing(userEffectSchema),
  },

  listProjects: {
    method: 'GET',
    path: '/v1/projects',
    summary: 'List projects',
    tag: 'Projects',
    scope: 'projects:read',
    query: listQuery,
    answers: { 200: projectPage },
  },
  createProject: {
    method: 'POST',
    path: '/v1/projects',
    summary: 'Make a project',
    tag: 'Projects',
    scope: 'projects:write',
    body: createProjectBody,
    answers: { 201: projectSchema },
  },
  patchProject: {
    method: 'PATCH',
    path: '/v1/projects/{id}',
    summary: 'Change a project',
    tag: 'Projects',
    scope: 'projects:write',
    params: idParams,
    body: patchProjectBody,
    answers: { 200: projectSchema },
  },
  closeProject: {
    method: 'DELETE',
    path: '/v1/projects/{id}',
    summary: 'Close a project; its tokens stop',
    tag: 'Projects',
    scope: 'projects:write',
    params: idParams,
    ...narrowing(projectEffectSchema),
  },
  putMember: {
    method: 'PUT',
    path: '/v1/projects/{id}/members/{userId}',
    summary: 'Add a member or change a role',
    tag: 'Projects',
    scope: 'projects:write',
    params: memberParams,
    body: putMemberBody,
    ...narrowing(projectEffectSchema),
    errors: ['conflict'],
  },
  removeMember: {
    method: 'DELETE',
    path: '/v1/projects/{id}/members/{userId}',
    summary: 'Remove a member',
    tag: 'Projects',
    scope: 'projects:write',
    params: memberParams,
    ...narrowing(projectEffectSchema),
    errors: ['conflict'],
  },

  listScopes: {
    method: 'GET',
    path: '/v1/scopes',
    summary: 'The scopes known',
    tag: 'Tokens',
    scope: 'signed-in',
    answers: { 200: scopeListSchema },
  },

  listAudit: {
    method: 'GET',
    path: '/v1/audit',
    summary: 'Audit events, newest first',
    tag: 'Audit',
    scope: 'audit:read',
    query: auditQuery,
    answers: { 200: auditPage },
  },
  exportAudit: {
    method: 'GET',
    path: '/v1/audit/export',
    summary: 'Audit events as a stream, oldest first',
    tag: 'Audit',
    scope: 'audit:read',
    query: auditExportQuery,
    answers: { 200: z.string() },
    answerTypes: ['application/x-ndjson', 'text/csv'],
  },
  verifyAudit: {
    method: 'GET',
    path: '/v1/audit/verify',
    summary: 'The state of the hash chain',
    tag: 'Audit',
    scope: 'audit:read',
    answers: { 200: chainStateSchema },
  },
  getDenial: {
    method: 'GET',
    path: '/v1/denials/{requestId}',
    summary: 'Why a request was refused',
    tag: 'Audit',
    scope: 'signed-in',
    params: denialParams,
    answers: { 200: denialSchema },
  },

  introspect: {
    method: 'POST',
    path: '/oauth2/introspect',
    summary: 'Token introspection (RFC 7662)',
    tag: 'OAuth 2.0',
    scope: 'tokens:verify',
    body: introspectBody,
    bodyType: 'form',
    answers: { 200: introspectionSchema },
  },
  oauthRevoke: {
    method: 'POST',
    path: '/oauth2/revoke',
    summary: 'Token revocation (RFC 7009)',
    tag: 'OAuth 2.0',
    scope: 'tokens:verify',
    body: introspectBody,
    bodyType: 'form',
    answers: { 200: null },
  },
} as const satisfies Record<string, Endpoint>;

export type EndpointName = keyof typeof ENDPOINTS;
