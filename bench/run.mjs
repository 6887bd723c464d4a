/**
 * `npm run bench`: every benchmark, one after the other, each in a process of its own. `npm run bench -- verify` runs
 * one. Ends with the targets that were missed; each benchmark prints its figures beside them.
 */
import { spawnSync } from 'node:child_process';
import path from 'node:path';

/** By name: what each needs of node. */
const benches = {
  verify: ['--expose-gc', '--max-old-space-size=2048'],
  revocation: [],
  proxy: [],
};

const chosen = process.argv.slice(2);
const unknown = chosen.filter((name) => !(name in benches));
if (unknown.length) {
  console.error(`no benchmark is called ${unknown.join(', ')}; there are: ${Object.keys(benches).join(', ')}`);
  process.exit(2);
}
const missed = [];
for (const [name, flags] of Object.entries(benches)) {
  if (chosen.length && !chosen.includes(name)) continue;
  console.log(`\n${name}`);
  const { status } = spawnSync(process.execPath, [...flags, path.join(import.meta.dirname, `${name}.mjs`)], {
    stdio: 'inherit',
  });
  if (status !== 0) missed.push(name);
}
console.log(missed.length ? `\ntargets missed: ${missed.join(', ')}` : '\nall targets met');
process.exitCode = missed.length ? 1 : 0;
