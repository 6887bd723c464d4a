import type { AuditAction } from '@latchkey/contracts';
import { t } from '../texts.js';

// The texts hold one for each action, kept whole by their type; no schema reaches the browser.
export const AUDIT_ACTION_NAMES = Object.keys(t.audit.actions) as AuditAction[];
