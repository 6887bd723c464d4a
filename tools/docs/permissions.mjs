/** permissions.md, from the table in packages/contracts; a test of the token-service checks every cell. */
import { CALLERS, ENDPOINTS, PERMISSIONS } from '@latchkey/contracts';
import { table } from './table.mjs';

export function generate() {
  const callers = /** @type {[keyof typeof CALLERS, string][]} */ (Object.entries(CALLERS));
  const rows = PERMISSIONS.map(({ call, target, cells }) => [
    `\`${ENDPOINTS[call].method} ${ENDPOINTS[call].path}\``,
    target === 'anything' ? '' : target,
    ...callers.map(([name]) => (cells[name] === 'yes' ? '✓' : String(cells[name]))),
  ]);
  const head = callers.map(([, meaning], at) => `${at + 1}. ${meaning}`).join('\n');
  return {
    'permissions.md': `# Who may do what

Every call of the management API for every kind of caller. ✓ is allowed; a number is the status of the rejection: 401
not authenticated, 403 not permitted, 404 not visible to the caller. A test checks every cell over HTTP.

${head}

${table(['Call', 'About', ...callers.map((_, at) => String(at + 1))], rows)}`,
  };
}
