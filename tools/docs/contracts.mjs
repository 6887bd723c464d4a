/** openapi.json, errors.md and scopes.md, from packages/contracts. */
import { ENDPOINTS, ERRORS, errorCodesOf, MANAGEMENT_SCOPES, openApiDocument } from '@latchkey/contracts';
import { table } from './table.mjs';

/** @typedef {import('@latchkey/contracts').Endpoint} Endpoint */

export function generate() {
  return {
    'openapi.json': `${JSON.stringify(openApiDocument(), null, 2)}\n`,
    'errors.md': errors(),
    'scopes.md': scopes(),
  };
}

const calls = /** @type {[string, Endpoint][]} */ (Object.entries(ENDPOINTS));

function errors() {
  const rows = Object.entries(ERRORS).map(([code, { status, title, meaning }]) => {
    const by = calls.filter(([, endpoint]) => errorCodesOf(endpoint).some((one) => one === code)).length;
    const where = by === 0 ? 'proxied routes' : by === calls.length ? 'every call' : `${by} of ${calls.length} calls`;
    return [`\`${code}\``, String(status), title, meaning, where];
  });
  return `# Error codes

Every error is \`application/problem+json\` (RFC 9457): \`type\`, \`title\`, \`status\`, \`detail\`, \`code\`, \`requestId\`, and
\`errors\` (\`field\`, \`message\`) where single fields are invalid. The list is closed: no other code is ever returned.

${table(['Code', 'Status', 'Title', 'Meaning', 'Returned by'], rows)}`;
}

function scopes() {
  const rows = MANAGEMENT_SCOPES.map(({ name, description, projectRoles, members }) => [
    `\`${name}\``,
    description,
    projectRoles.join(', ') || 'none',
    members ? 'yes' : 'no',
    calls
      .filter(([, { scope }]) => scope === name)
      .map(([, { method, path }]) => `\`${method} ${path}\``)
      .join('<br>') || 'the RPC',
  ]);
  return `# Scopes of the management API

A personal token can do what its owner can do now, restricted by its scopes, never more; a project token only what its
scopes allow, only in its project. Administrators have every scope everywhere. The operator declares the scopes of the
protected APIs (\`SCOPES_FILE\`).

${table(['Scope', 'Allows', 'Project roles with it', 'Every member has it outside projects', 'Calls'], rows)}`;
}
