import { z } from 'zod';

/** A scope: `resource:action` in lower case; no wildcards. */
export const SCOPE_PATTERN = /^[a-z][a-z0-9-]{0,31}:[a-z][a-z0-9-]{0,31}$/;
export const scopeSchema = z.string().regex(SCOPE_PATTERN, 'a scope looks like "documents:read"');

export const PROJECT_ROLES = ['owner', 'editor', 'viewer'] as const;
export const projectRoleSchema = z.enum(PROJECT_ROLES);
export type ProjectRole = (typeof PROJECT_ROLES)[number];

export const PERSON_ROLES = ['admin', 'member'] as const;
export const personRoleSchema = z.enum(PERSON_ROLES);
export type PersonRole = (typeof PERSON_ROLES)[number];

/**
 * A declared scope: the project roles that grant it there, and the people who have it outside any project.
 * Administrators have every scope everywhere.
 */
export interface ScopeDeclaration {
  name: string;
  description: string;
  /** Roles that grant it inside their project. */
  projectRoles: readonly ProjectRole[];
  /** Whether every member has it outside projects (limited to what the person has permission to see). */
  members: boolean;
}

const ALL: readonly ProjectRole[] = PROJECT_ROLES;

/** The scopes of Latchkey's own management API. The guarded APIs' scopes are declared by the operator. */
export const MANAGEMENT_SCOPES: readonly ScopeDeclaration[] = [
  {
    name: 'tokens:read',
    description: 'See tokens, never their secrets, and how they are used.',
    projectRoles: ALL,
    members: true,
  },
  {
    name: 'tokens:write',
    description: 'Issue, edit, rotate and revoke tokens.',
    projectRoles: ['owner', 'editor'],
    members: true,
  },
  {
    name: 'tokens:verify',
    description: 'Check whether a presented token is valid. Only administrators grant it.',
    projectRoles: [],
    members: false,
  },
  { name: 'users:read', description: 'See people.', projectRoles: [], members: false },
  { name: 'users:write', description: 'Add, change and disable people.', projectRoles: [], members: false },
  { name: 'projects:read', description: 'See projects and their members.', projectRoles: ALL, members: true },
  {
    name: 'projects:write',
    description: 'Make, change and close projects, and change their members.',
    projectRoles: ['owner'],
    members: true,
  },
  {
    name: 'system:read',
    description: 'See the verifiers and the state of the system.',
    projectRoles: [],
    members: false,
  },
  { name: 'system:write', description: "End a verifier's lease.", projectRoles: [], members: false },
  { name: 'audit:read', description: 'Read the audit log.', projectRoles: [], members: false },
];
