import type { PatchTokenBody, Policy } from '@latchkey/contracts';
import type { AuditEntry } from '../audit/index.js';
import type { Actor, ScopesService } from '../authorization/index.js';
import { conflict } from '../http/index.js';
import { labelsOf, rateColumns, rateOf, type TokenEntity } from './token.entity.js';
import { entryOf } from './token.repository.js';
import { boundsOf, mustBeWithin, mustGrant, mustMeetAddresses } from './token.rules.js';

/** What a change of a token comes to. */
export interface Patch {
  columns: Partial<TokenEntity>;
  /** Whether it disables the token or enables it; null: neither. */
  turned: 'disabled' | 'enabled' | null;
  /** Whether verifiers are to be told. */
  touchesChecks: boolean;
  /** Whether the token is disabled after it. */
  disabled: boolean;
  entries: AuditEntry[];
}

/**
 * The change that is asked for.
 * @param allowedIps those asked for, as canonical CIDRs, with the policy that they are to meet; undefined: they stay
 * @throws ApiError when the token is revoked, or the caller may not change it so
 */
export function patchOf(
  now: Actor,
  known: ScopesService,
  token: TokenEntity,
  body: PatchTokenBody,
  asked: { allowedIps: string[]; policy: Policy } | undefined,
): Patch {
  if (token.revokedAt) throw conflict('The token is revoked. A revoked token stays as it was; issue a new one.');
  const wasDisabled = token.disabledAt !== null;
  const disabled = body.disabled ?? wasDisabled;
  const columns = {
    ...labelsOf(body, token),
    ...rateColumns(body.rateLimit === undefined ? rateOf(token) : body.rateLimit),
    scopes: body.scopes ?? token.scopes,
    allowedIps: asked?.allowedIps ?? token.allowedIps,
    disabledAt: disabled ? (token.disabledAt ?? new Date()) : null,
  };
  const after = { ...token, ...columns };
  const added = after.scopes.filter((scope) => !token.scopes.includes(scope));
  mustGrant(now, known, added, token.projectId);
  if (asked) mustMeetAddresses(asked.policy, asked.allowedIps);
  const turned = disabled === wasDisabled ? null : disabled ? 'disabled' : 'enabled';
  const boundsChange = body.scopes !== undefined || asked !== undefined || body.rateLimit !== undefined;
  // Nor does a token lift the bounds that it was given itself.
  if (now.type === 'token' && (boundsChange || turned === 'enabled')) mustBeWithin(now, boundsOf(after));
  const fields = Object.keys(body).filter((field) => field !== 'disabled');
  return {
    columns,
    turned,
    disabled,
    // Disabling once more waits in full too: the first may be on its way still.
    touchesChecks: boundsChange || body.disabled !== undefined,
    entries: [
      ...(fields.length ? [entryOf(now, 'token.updated', after, changedDetails(token, after, fields))] : []),
      ...(turned ? [entryOf(now, `token.${turned}`, token)] : []),
    ],
  };
}

/** What an update changed: the old and new bounds, and of texts only that they changed. */
function changedDetails(before: TokenEntity, after: TokenEntity, fields: string[]): Record<string, unknown> {
  const details: Record<string, unknown> = { fields };
  if (fields.includes('name')) details['name'] = { from: before.name, to: after.name };
  if (fields.includes('scopes')) details['scopes'] = { from: before.scopes, to: after.scopes };
  if (fields.includes('allowedIps')) details['allowedIps'] = { from: before.allowedIps, to: after.allowedIps };
  if (fields.includes('rateLimit')) details['rateLimit'] = { from: rateOf(before), to: rateOf(after) };
  return details;
}
