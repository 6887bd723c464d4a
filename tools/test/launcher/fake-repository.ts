import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

const server = `
const { createServer } = require('node:http');
const { appendFileSync, writeFileSync } = require('node:fs');
const name = require('node:path').basename(require('node:path').dirname(__dirname));
const log = (text) => appendFileSync(__dirname + '/../../../order', text + '\\n');
writeFileSync(__dirname + '/env.json', JSON.stringify(process.env));
const listen = (port, handle) => createServer(handle).listen(Number(port), process.env.HOST);
const respond = (response, status, body, headers = {}) =>
  response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(body));
process.on('SIGTERM', () => { log(name + ' stopped'); process.exit(0); });
process.stdout.write(JSON.stringify({ level: 'info', time: new Date(), service: name, msg: 'up', port: 1 }) + '\\n');
`;

const opsServer = `
setTimeout(() => { log(name + ' ready'); listen(process.env.OPS_PORT || process.env.PORT, (request, response) => respond(response, 200, {})); }, 50);
`;

/** What the launcher calls at the gateway: sign-in, a project, a token, and a route that requires the token. */
const publicServer = `
listen(process.env.PORT, (request, response) => {
  const call = request.method + ' ' + request.url;
  let body = '';
  request.on('data', (chunk) => { body += chunk; }).on('end', () => {
    const signedIn = request.headers.cookie === 'session=abc' && request.headers.origin === process.env.PUBLIC_URL;
    if (call === 'POST /v1/session') {
      const { email, password } = JSON.parse(body);
      const valid = email === 'admin@latchkey.local' && password.length >= 12;
      return respond(response, valid ? 200 : 401, {}, valid ? { 'set-cookie': 'session=abc; HttpOnly; SameSite=Lax' } : {});
    }
    if (call === 'GET /demo/projects/p1/documents') {
      const valid = request.headers.authorization === 'Bearer lk_pat_fake';
      return respond(response, valid ? 200 : 401, { items: ['from the demo upstream'] });
    }
    if (!signedIn) return respond(response, 403, { code: 'cross_site' });
    if (call === 'POST /v1/projects') return respond(response, 201, { id: 'p1' });
    if (call === 'POST /v1/tokens') return respond(response, 201, { secret: 'lk_pat_fake' });
    if (call === 'DELETE /v1/session') return response.writeHead(204).end();
    respond(response, 404, {});
  });
});
`;

/** A repository whose services are small programs that respond to the launcher like the real ones. */
export function fakeRepository(changes: Record<string, string> = {}) {
  const root = mkdtempSync(path.join(tmpdir(), 'latchkey-launcher-'));
  chmodSync(root, 0o711);
  const programs: Record<string, string> = {
    'apps/token-service/dist/migrate.js':
      "require('node:fs').appendFileSync(__dirname + '/../../../order', 'migrated\\n');" +
      "require('node:fs').writeFileSync(__dirname + '/migrate-env.json', JSON.stringify(process.env));",
    'apps/token-service/dist/main.js': server + opsServer,
    'apps/gateway/dist/main.js': server + opsServer + publicServer,
    'apps/jobs/dist/main.js': server + opsServer,
    'examples/demo-upstream/dist/main.js': server + opsServer,
    ...changes,
  };
  for (const [file, text] of Object.entries(programs)) {
    mkdirSync(path.dirname(path.join(root, file)), { recursive: true });
    writeFileSync(path.join(root, file), text);
  }
  return { root, remove: () => rmSync(root, { recursive: true, force: true }) };
}
