import { parseArgs } from 'node:util';

/**
 * Reads a benchmark's options, or prints what it does and takes (`--help`) and ends.
 * @template {Record<string, [value: number | string | boolean, meaning: string]>} Options
 * @param {string} name
 * @param {string} purpose what it shows, in a sentence or two
 * @param {Options} options by name: the default, which also gives the type, and what it means
 * @returns {{ [Name in keyof Options]: Options[Name][0] extends number ? number : Options[Name][0] extends boolean ? boolean : string }}
 */
export function options(name, purpose, options) {
  const kinds = Object.fromEntries(
    Object.entries(options).map(([option, [value]]) => [
      option,
      { type: /** @type {'boolean' | 'string'} */ (typeof value === 'boolean' ? 'boolean' : 'string') },
    ]),
  );
  const fail = (/** @type {string} */ words) => {
    console.error(`${name}: ${words}; see npm run bench -- ${name} --help`);
    process.exit(2);
  };
  let given;
  try {
    given = parseArgs({ options: { ...kinds, help: { type: 'boolean' } } }).values;
  } catch (error) {
    return fail(/** @type {Error} */ (error).message);
  }
  if (given['help']) {
    console.log(`npm run bench -- ${name} [options]\n\n${purpose}\n`);
    for (const [option, [value, meaning]] of Object.entries(options))
      console.log(`  --${option.padEnd(12)} ${meaning}${value === '' || value === false ? '' : ` (${value})`}`);
    process.exit(0);
  }
  const read = ([option, [value]]) => {
    const text = given[option];
    if (typeof value !== 'number' || text === undefined) return [option, text ?? value];
    if (!/^\d+$/.test(text)) fail(`--${option} must be a whole number, not ${JSON.stringify(text)}`);
    return [option, Number(text)];
  };
  return /** @type {any} */ (Object.fromEntries(Object.entries(options).map(read)));
}
