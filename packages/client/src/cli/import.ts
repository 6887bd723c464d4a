import { hash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { createInterface } from 'node:readline';
import type { Command } from 'commander';
import type { Client, ImportedToken } from '../index.js';
import type { Context } from './context.js';
import { CommandError } from './exit.js';
import { printJson, say } from './output.js';

const BATCH_SIZE = 1_000;
const START_LENGTH = 4;

/** `latchkey import`: secrets in the file are hashed here and never leave this machine. */
export function importCommand(program: Command, { output, stdin }: Context, client: () => Promise<Client>): void {
  program
    .command('import <file>')
    .description(
      'import tokens: one JSON object a line with name and either secret, or sha256 and start; "-" reads standard input',
    )
    .option('--project <id>', 'they become tokens of this project; by default your own')
    .action(async (file: string, { project }: { project?: string }) => {
      const tokens = await read(file === '-' ? stdin : createReadStream(file), file);
      if (tokens.length === 0) throw new CommandError('usage', `${file} contains no token`);
      const api = await client();
      const imported: object[] = [];
      for (let at = 0; at < tokens.length; at += BATCH_SIZE) {
        const body = { tokens: tokens.slice(at, at + BATCH_SIZE), ...(project ? { projectId: project } : {}) };
        imported.push(...(await api.importTokens({ body })).tokens);
        if (tokens.length > BATCH_SIZE) say(output, `${imported.length} of ${tokens.length} imported`);
      }
      if (output.json) printJson(output, imported);
      else output.out.write(`${imported.length} imported\n`);
    });
}

async function read(source: NodeJS.ReadableStream, name: string): Promise<ImportedToken[]> {
  const tokens: ImportedToken[] = [];
  let number = 0;
  try {
    for await (const line of createInterface({ input: source, crlfDelay: Number.POSITIVE_INFINITY })) {
      number++;
      if (line.trim()) tokens.push(readLine(line, `${name}:${number}`));
    }
  } catch (error) {
    if (error instanceof CommandError) throw error;
    throw new CommandError('usage', `cannot read ${name}: ${(error as NodeJS.ErrnoException).code ?? String(error)}`);
  }
  return tokens;
}

function readLine(line: string, place: string): ImportedToken {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    throw new CommandError('usage', `${place}: is not JSON`); // the line can contain a secret, so it is not printed
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new CommandError('usage', `${place}: is not a JSON object`);
  const { secret, ...rest } = value as Record<string, unknown>;
  if (secret === undefined) return rest as unknown as ImportedToken;
  if (typeof secret !== 'string') throw new CommandError('usage', `${place}: secret must be a string`);
  const body = secret.lastIndexOf('_') + 1;
  const known = { sha256: hash('sha256', secret, 'hex'), start: secret.slice(0, body + START_LENGTH) };
  return { ...rest, ...known } as unknown as ImportedToken;
}
