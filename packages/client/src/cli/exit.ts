import { LatchkeyError } from '../errors.js';

/** Exit codes of the `latchkey` command: stable for scripts. */
export const EXIT = {
  ok: { code: 0, meaning: 'Done; a change that reduces rights is effective everywhere.' },
  failed: { code: 1, meaning: 'Any other failure: a file, an internal error, a response that is not from Latchkey.' },
  usage: { code: 2, meaning: 'The command line, a given file, or the request is invalid (400, 413, 422).' },
  unauthenticated: { code: 3, meaning: 'No token, or it is not accepted (401).' },
  forbidden: { code: 4, meaning: 'The token may not do this (403).' },
  notFound: { code: 5, meaning: 'Not found, or not visible to the token (404).' },
  conflict: { code: 6, meaning: 'Conflict with the current state (409).' },
  unavailable: { code: 7, meaning: 'The server cannot be reached, is overloaded or timed out (429, 503); try again.' },
  notEffective: { code: 8, meaning: 'Done and durable, but not yet confirmed by every verifier (202).' },
  found: { code: 10, meaning: '`scan` found tokens.' },
  broken: {
    code: 11,
    meaning:
      '`audit verify` found the chain broken; `receipt verify` found a receipt that none of the keys has signed.',
  },
} as const satisfies Record<string, { code: number; meaning: string }>;
export type ExitName = keyof typeof EXIT;

/** Ends the command with a message for people and a code for scripts. */
export class CommandError extends Error {
  override name = 'CommandError';
  constructor(
    readonly exit: ExitName,
    message: string,
  ) {
    super(message);
  }
}

/** The exit code for an error of a call. */
export function exitOf(error: LatchkeyError): ExitName {
  switch (error.status) {
    case 400:
    case 413:
    case 415:
    case 422:
      return 'usage';
    case 401:
      return 'unauthenticated';
    case 403:
      return 'forbidden';
    case 404:
      return 'notFound';
    case 409:
      return 'conflict';
    case 429:
    case 503:
      return 'unavailable';
    default:
      return error.code === 'network' || error.code === 'timeout' ? 'unavailable' : 'failed';
  }
}

/** The exit code, and what is printed on standard error, for any error of a command. */
export function explain(error: unknown): { exit: ExitName; lines: string[]; problem?: object } {
  if (error instanceof CommandError) return { exit: error.exit, lines: [error.message] };
  if (error instanceof LatchkeyError) {
    const { code, status, detail, requestId, errors } = error;
    return {
      exit: exitOf(error),
      lines: [
        `${detail} (${code}${requestId ? `, request ${requestId}` : ''})`,
        ...errors.map(({ field, message }) => `  ${field}: ${message}`),
      ],
      problem: { code, status, detail, requestId, errors },
    };
  }
  return { exit: 'failed', lines: [error instanceof Error ? error.message : String(error)] };
}
