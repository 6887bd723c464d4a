import type { AuditAction } from '@latchkey/contracts';

// Kept whole by its type: an action missing here is an error of the compiler, and no schema reaches the browser.
const ALL: Record<AuditAction, true> = {
  'token.issued': true,
  'token.updated': true,
  'token.disabled': true,
  'token.enabled': true,
  'token.rotated': true,
  'token.revoked': true,
  'token.expired': true,
  'user.created': true,
  'user.updated': true,
  'user.disabled': true,
  'user.enabled': true,
  'project.created': true,
  'project.updated': true,
  'project.closed': true,
  'member.added': true,
  'member.changed': true,
  'member.removed': true,
  'policy.updated': true,
  'session.started': true,
  'session.failed': true,
  'session.ended': true,
};
export const AUDIT_ACTION_NAMES = Object.keys(ALL) as AuditAction[];
