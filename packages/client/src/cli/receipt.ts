import { type Receipt, receiptOfJwt, receiptSchema, verifyReceipt } from '@latchkey/contracts';
import type { Command } from 'commander';
import type { Client } from '../index.js';
import type { Context } from './context.js';
import { CommandError } from './exit.js';
import { gather, opened, publicKeyIn, publicKeysIn } from './files.js';
import { list, printJson, say, show } from './output.js';

const LEDGER = {
  written: 'written outside the database',
  failed: 'NOT written outside the database: its disk failed',
  off: 'none is kept',
};

/** Enough for the receipt of ten thousand verifiers. */
const BYTES_MAX = 4 * 1024 * 1024;

const BY = {
  ack: 'acknowledged it',
  cursor: 'had read it',
  released: 'had stopped',
  lease: 'did not confirm: its lease expired',
} as const;

/** `latchkey receipt …` */
export function receiptCommands(
  program: Command,
  { output, exit, stdin }: Context,
  client: () => Promise<Client>,
): void {
  const receipt = program.command('receipt').description('receipts of revocations');

  receipt
    .command('get <id>')
    .description('a receipt by its id, as JSON for `receipt verify`')
    .option('--jwt', 'as a signed JSON Web Token, which any JWT library can verify')
    .action(async (id: string, { jwt }: { jwt?: true }) => {
      const api = await client();
      if (!jwt) return printJson(output, await api.getReceipt({ params: { id } }));
      const response = await api.open('getReceipt', { params: { id } }, { accept: 'application/jwt' });
      output.out.write(`${await response.text()}\n`);
    });

  receipt
    .command('verify [file]')
    .description(
      'verify the signature of a receipt (as JSON, as a JWT, or within a response or token) without any server; "-" or no file reads standard input',
    )
    .option('--key <file>', 'public key in PEM that must have signed it; can be repeated', gather, [])
    .option(
      '--keys <file>',
      'set of such keys, as published by the service at /v1/receipts/keys: a file, or its http(s) URL',
    )
    .action(async (file: string | undefined, options: { key: string[]; keys?: string }) => {
      const keys = await Promise.all(options.key.map(publicKeyIn));
      if (options.keys !== undefined) keys.push(...(await publicKeysIn(options.keys)));
      else if (keys.length === 0)
        throw new CommandError(
          'usage',
          'give --key or --keys: the service logs its public key at its start and publishes it at /v1/receipts/keys',
        );
      const input = file === undefined || file === '-' ? stdin : (await opened(file)).createReadStream();
      const given = receiptIn(await textOf(input));
      const verdict = verifyReceipt(given, keys);
      if (!verdict.ok) {
        show(output, verdict, [
          ['signed', false],
          ['why', verdict.reason],
        ]);
        exit('broken');
        return;
      }
      const { keyId, change } = verdict;
      const { confirmedAt, elapsedMs, ledger } = given;
      // only what is signed
      const verifiers = given.verifiers.map(({ id, name, caller, by, ms }) => ({
        id,
        name,
        caller: caller?.type,
        by,
        ms,
      }));
      if (output.json) {
        printJson(output, { ok: true, keyId, change, confirmedAt, elapsedMs, verifiers, ledger });
        return;
      }
      show(output, given, [
        ['signed', true],
        ['signed by', keyId],
        ['change', change.action],
        ['of', `${change.subject.type} ${change.subject.id}`],
        ['at', change.at],
        ['reason', change.reason],
        ['audit event', change.id],
        ['confirmed at', confirmedAt],
        ['after', `${elapsedMs} ms`],
        ['ledger', ledger && LEDGER[ledger]],
      ]);
      if (verifiers.length > 0)
        list(output, verifiers, [
          ['VERIFIER', (v) => v.name],
          ['ID', (v) => v.id],
          ['CALLER', (v) => v.caller],
          ['HOW', (v) => BY[v.by]],
          ['MS', (v) => v.ms],
        ]);
      say(
        output,
        `
Proven: the owner of the key ${keyId} stated that this change was in force at every verifier that could accept tokens
from memory, ${verifiers.length === 0 ? 'of which there was none' : `the ${verifiers.length} listed`}, at the time of "confirmed at".
Not proven: that the clock was right, that the service listed every verifier, that no one else had the key, and later
changes: a disabled token can be enabled again. \`latchkey audit verify\` proves the audit event.`,
      );
    });
}

async function textOf(input: AsyncIterable<Buffer | string>): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of input) {
    const piece = Buffer.from(chunk);
    bytes += piece.length;
    if (bytes > BYTES_MAX) throw new CommandError('usage', `a receipt has at most ${BYTES_MAX} bytes`);
    chunks.push(piece);
  }
  return Buffer.concat(chunks).toString('utf8');
}

/** Parses a receipt: as JSON, as a JWT, or as `receipt` of an API response. */
function receiptIn(text: string): Receipt {
  const signed = receiptOfJwt(text.trim());
  if (signed) return signed;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new CommandError('usage', 'it is not JSON, or not whole: give a receipt, or the response that contains it');
  }
  const candidate = isObject(value) && 'receipt' in value ? value['receipt'] : value;
  if (candidate === null) throw new CommandError('usage', 'there is no receipt in it: the change is not confirmed yet');
  const receipt = receiptSchema.safeParse(candidate);
  if (receipt.success) return receipt.data;
  const { path, message } = receipt.error.issues[0]!;
  throw new CommandError('usage', `it is no receipt: ${[...path, message].join(': ')}`);
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
