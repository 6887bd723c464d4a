/**
 * `npm run bench`: the benchmarks beside named peers, one after the other, each in a process of its own. `npm run bench
 * -- proxy` runs one, `npm run bench -- expiry --due 1000` with its options; `--help` lists them all, those that take
 * longer included; `--quick` alone is `proxy --quick`. Installs and builds what is missing first. Ends with the targets
 * that were missed; each benchmark prints its figures beside them.
 */
import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { installWhatIsMissing } from '../tools/lib/install.mjs';
import { run, underRuntimeNode } from '../tools/lib/processes.mjs';
import { turboArguments } from '../tools/lib/turbo.mjs';

/**
 * By name: what each shows, what it needs of node, and where it lies (`<name>.mjs` by default). `long`: minutes, and
 * only when asked for by name.
 * @type {Record<string, { shows: string, flags?: string[], file?: string, long?: boolean }>}
 */
const benches = {
  verify: { shows: 'verify() from memory, and memory per token', flags: ['--expose-gc', '--max-old-space-size=2048'] },
  revocation: { shows: 'revoke until effective at four gateways' },
  ledger: { shows: 'what the ledger costs a revocation, beside the same without; a storm, a full disk' },
  watch: { shows: 'revoke until effective at third parties on streams, with Redis and without' },
  miss: { shows: 'checks of tokens never seen before; --before <folder>: beside another version' },
  forged: { shows: 'checks while forged messages flood Redis, beside the same undisturbed' },
  proxy: { shows: 'the gateway as a proxy beside nginx, HAProxy, nginx + Lua, bare proxies; --quick: two minutes' },
  'forward-auth': { shows: 'checks for nginx auth_request, Envoy and Verify, beside servers that check nothing' },
  issue: { shows: 'tokens issued over HTTP beside raw inserts of the same rows' },
  soak: { shows: 'a gateway under half load for an hour: memory, descriptors, cost of a request', long: true },
  exposure: { shows: 'a token exposed that was shown 100 000 others, and who waits for that', long: true },
  restart: { shows: 'PostgreSQL restarted at half load, with 100 000 tokens remembered', long: true },
  everything: { shows: 'everything revoked among a million tokens, and who waits for the marking', long: true },
  console: {
    shows: 'first load of the tokens page, and scrolling through ten thousand tokens, in Chromium',
    long: true,
  },
  pagination: { shows: 'lists and searches at a million tokens beside ten thousand', long: true },
  expiry: { shows: 'a sweep of due tokens, and who waits for it', file: 'jobs/expiry.mjs', long: true },
  'killed-workers': {
    shows: 'a worker killed every second: what is lost or doubled',
    file: 'jobs/killed-workers.mjs',
    long: true,
  },
  'killed-gateway': {
    shows: 'a gateway killed under traffic: verdicts lost',
    file: 'jobs/killed-gateway.mjs',
    long: true,
  },
  usage: { shows: '200 000 requests through three gateways: exact totals', file: 'jobs/usage.mjs', long: true },
  audit: { shows: 'sealing, export and proof of a million events', file: 'jobs/audit.mjs', long: true },
  tampering: { shows: 'what a superuser does to the audit log is found', file: 'jobs/tampering.mjs', long: true },
  'full-disk': {
    shows: 'PostgreSQL on a disk that fills: changes refused whole',
    file: 'jobs/full-disk.mjs',
    long: true,
  },
};

await installWhatIsMissing();
await underRuntimeNode(import.meta.filename);

const given = process.argv.slice(2);
const args = given[0] === '--quick' ? ['proxy', ...given] : given;
const firstOption = args.findIndex((arg) => arg.startsWith('-'));
const [chosen, options] = firstOption < 0 ? [args, []] : [args.slice(0, firstOption), args.slice(firstOption)];
if (options.includes('--help') && chosen.length === 0) {
  console.log('npm run bench -- [name…] [options of that one]; without a name, all but the long ones\n');
  for (const [name, { shows, long }] of Object.entries(benches))
    console.log(`  ${name.padEnd(16)} ${shows}${long ? ' (long)' : ''}`);
  process.exit(0);
}
const unknown = chosen.filter((name) => !(name in benches));
if (unknown.length) {
  console.error(`no benchmark is called ${unknown.join(', ')}; there are: ${Object.keys(benches).join(', ')}`);
  process.exit(2);
}
if (options.length > 0 && chosen.length !== 1) {
  console.error('options go with the name of one benchmark: npm run bench -- expiry --due 1000');
  process.exit(2);
}
if (!options.includes('--help')) {
  const { code, output } = await run('turbo', ['run', 'build', ...turboArguments, '--output-logs=errors-only']);
  if (code !== 0) {
    console.error(`${output.trim()}\nthe build failed`);
    process.exit(1);
  }
}
const missed = [];
for (const [name, { flags = [], file = `${name}.mjs`, long }] of Object.entries(benches)) {
  if (chosen.length ? !chosen.includes(name) : long) continue;
  if (!options.includes('--help')) console.log(`\n${name}`);
  const { status } = spawnSync(process.execPath, [...flags, path.join(import.meta.dirname, file), ...options], {
    stdio: 'inherit',
  });
  if (status !== 0) missed.push(name);
}
if (!options.includes('--help'))
  console.log(missed.length ? `\ntargets missed: ${missed.join(', ')}` : '\nall targets met');
process.exitCode = missed.length ? 1 : 0;
