/** permissions.md, from the table in packages/contracts that a test of the token-service drives cell by cell. */
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

Every call of the management API with everybody who could make it. ✓ is let in; a number is the status that refuses:
401 not known, 403 not permitted, 404 nothing that the caller may see. A test drives every cell through HTTP.

${head}

${table(['Call', 'About', ...callers.map((_, at) => String(at + 1))], rows)}`,
  };
}
