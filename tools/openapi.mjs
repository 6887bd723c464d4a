/** Checks the OpenAPI document with Redocly's rules, offline. Imports the built contracts: build first. */
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { reportProblems } from './lib/report-problems.mjs';

/**
 * Problems of the document, one message each.
 * @param {unknown} [document] the management API's by default
 * @returns {Promise<string[]>}
 */
export async function openApiProblems(document) {
  const { createConfig, lintFromString } = await import('@redocly/openapi-core');
  const { openApiDocument } = await import('@latchkey/contracts');
  const source = JSON.stringify(document ?? openApiDocument(), null, 2);
  // Two calls only redirect: they are opened in a browser.
  const rules = { 'operation-2xx-response': /** @type {const} */ ('off') };
  const config = await createConfig({ extends: ['recommended-strict'], rules });
  const problems = await lintFromString({ source, absoluteRef: 'openapi.json', config });
  return problems.map(({ ruleId, message, location }) => `${location[0]?.pointer ?? '#'}: ${message} (${ruleId})`);
}

if (process.argv[1] && path.resolve(process.argv[1]) === fileURLToPath(import.meta.url))
  reportProblems(await openApiProblems());
