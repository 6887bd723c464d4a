/** Least to most talkative; `silent` writes nothing. */
export const LOG_LEVELS = ['silent', 'fatal', 'error', 'warn', 'info', 'debug', 'trace'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

/** Writes one JSON object a line. Callers hand in no header values and no query strings, so no secret can get here. */
export interface Log {
  error(message: string, fields?: Record<string, unknown>): void;
  info(message: string, fields?: Record<string, unknown>): void;
  debug(message: string, fields?: Record<string, unknown>): void;
}

/** A log that writes to `write` (stdout by default) all that is at or above `level`. */
export function createLog(
  level: LogLevel,
  write: (line: string) => void = (line) => void process.stdout.write(line),
): Log {
  const emit =
    (of: LogLevel) =>
    (message: string, fields: Record<string, unknown> = {}) => {
      if (LOG_LEVELS.indexOf(of) > LOG_LEVELS.indexOf(level)) return;
      write(
        `${JSON.stringify({ level: of, time: new Date().toISOString(), name: 'demo-upstream', msg: message, ...fields })}\n`,
      );
    };
  return { error: emit('error'), info: emit('info'), debug: emit('debug') };
}
