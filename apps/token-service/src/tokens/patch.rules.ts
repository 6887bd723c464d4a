import type { PatchTokenBody, Policy } from '@latchkey/contracts';
import type { AuditEntry } from '../audit/index.js';
import type { Actor, ScopesService } from '../authorization/index.js';
import { conflict } from '../http/index.js';
import { labelsOf, rateColumns, rateOf, type TokenEntity } from './token.entity.js';
import { entryOf } from './token.repository.js';
import { boundsOf, mustBeWithin, mustGrant, mustMeetAddresses } from './token.rules.js';

/** What a change of a token writes. */
export interface Patch {
  columns: Partial<TokenEntity>;
  /** Whether it disables or enables the token; null: neither. */
  turned: 'disabled' | 'enabled' | null;
  /** Whether it needs an invalidation. */
  affectsChecks: boolean;
  /** Whether the token is disabled after it. */
  disabled: boolean;
  entries: AuditEntry[];
}

/**
 * The requested change.
 * @param requested new addresses as canonical CIDRs, with the policy for them; undefined: unchanged
 * @throws ApiError when the token is revoked, or the caller may not make this change
 */
export function patchOf(
  now: Actor,
  known: ScopesService,
  token: TokenEntity,
  body: PatchTokenBody,
  requested: { allowedIps: string[]; policy: Policy } | undefined,
): Patch {
  if (token.revokedAt) throw conflict('The token is revoked and cannot be changed. Issue a new one.');
  const wasDisabled = token.disabledAt !== null;
  const disabled = body.disabled ?? wasDisabled;
  const columns = {
    ...labelsOf(body, token),
    ...rateColumns(body.rateLimit === undefined ? rateOf(token) : body.rateLimit),
    scopes: body.scopes ?? token.scopes,
    allowedIps: requested?.allowedIps ?? token.allowedIps,
    disabledAt: disabled ? (token.disabledAt ?? new Date()) : null,
  };
  const after = { ...token, ...columns };
  const added = after.scopes.filter((scope) => !token.scopes.includes(scope));
  mustGrant(now, known, added, token.projectId);
  if (requested) mustMeetAddresses(requested.policy, requested.allowedIps);
  const turned = disabled === wasDisabled ? null : disabled ? 'disabled' : 'enabled';
  const boundsChange = body.scopes !== undefined || requested !== undefined || body.rateLimit !== undefined;
  // A token must not widen its own bounds either.
  if (now.type === 'token' && (boundsChange || turned === 'enabled')) mustBeWithin(now, boundsOf(after));
  const fields = Object.keys(body).filter((field) => field !== 'disabled');
  return {
    columns,
    turned,
    disabled,
    // Disabling again also waits for confirmation: the first change can be unconfirmed.
    affectsChecks: boundsChange || body.disabled !== undefined,
    entries: [
      ...(fields.length ? [entryOf(now, 'token.updated', after, changedDetails(token, after, fields))] : []),
      ...(turned ? [entryOf(now, `token.${turned}`, token)] : []),
    ],
  };
}

/** For the audit event: old and new name and bounds; of other fields only which changed. */
function changedDetails(before: TokenEntity, after: TokenEntity, fields: string[]): Record<string, unknown> {
  const details: Record<string, unknown> = { fields };
  if (fields.includes('name')) details['name'] = { from: before.name, to: after.name };
  if (fields.includes('scopes')) details['scopes'] = { from: before.scopes, to: after.scopes };
  if (fields.includes('allowedIps')) details['allowedIps'] = { from: before.allowedIps, to: after.allowedIps };
  if (fields.includes('rateLimit')) details['rateLimit'] = { from: rateOf(before), to: rateOf(after) };
  return details;
}
