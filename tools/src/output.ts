const levels = ['trace', 'debug', 'info', 'warn', 'error', 'fatal'];
const colours: Record<string, string> = {
  debug: '90',
  trace: '90',
  info: '32',
  warn: '33',
  error: '31',
  fatal: '31;1',
};
/** Fields shown elsewhere in the line, or irrelevant on one machine. */
const hiddenFields = new Set(['level', 'time', 'service', 'name', 'msg', 'pid', 'hostname', 'v']);
/** Of the services: for records outside the database, not for people. Shown with LOG_LEVEL debug or trace. */
const hiddenMessages = new Set<unknown>(['audit checkpoint']);
const nameWidth = 13;

export interface Output {
  /** A message of the launcher. */
  say(line: string): void;
  /** A message shown only with LOG_LEVEL debug or trace. */
  detail(from: string, line: string): void;
  /** A line of a service: one JSON object, or any text. */
  pass(service: string, line: string): void;
}

/**
 * Merges the lines of all services into one readable stream: `time level service message field=value …`, coloured on a terminal.
 *
 * @param write called with complete lines, line breaks included
 * @param options `terminal`: colours and short times; `level`: minimum level for `detail`
 */
export function createOutput(write: (text: string) => void, options: { terminal: boolean; level: string }): Output {
  const isDetailed = levels.indexOf(options.level) <= levels.indexOf('debug');
  const paint = (colour: string, text: string) => (options.terminal ? `\u001b[${colour}m${text}\u001b[0m` : text);
  const print = (time: string, level: string, service: string, message: string) => {
    const at = options.terminal ? time.slice(11, 19) : time;
    const head = `${paint('90', at)} ${paint(colours[level] ?? '0', level.padEnd(5))} ${service.padEnd(nameWidth)}`;
    write(`${head} ${message}\n`);
  };
  return {
    say: (line) => write(`${line}\n`),
    detail: (from, line) => {
      if (isDetailed) {
        print(new Date().toISOString(), 'debug', from, line);
      }
    },
    pass: (service, line) => {
      if (line.trim() === '') return;
      const entry = parse(line);
      if (hiddenMessages.has(entry?.['msg']) && !isDetailed) return;
      if (!entry) print(new Date().toISOString(), 'info', service, line);
      else print(timeOf(entry), String(entry['level'] ?? 'info'), service, messageOf(entry));
    },
  };
}

function parse(line: string): Record<string, unknown> | null {
  if (!line.startsWith('{')) return null;
  try {
    return JSON.parse(line) as Record<string, unknown>;
  } catch {
    return null; // begins like JSON but is not
  }
}

function timeOf(entry: Record<string, unknown>): string {
  const time = new Date(entry['time'] as string | number);
  return Number.isNaN(time.getTime()) ? new Date().toISOString() : time.toISOString();
}

function messageOf(entry: Record<string, unknown>): string {
  const fields = Object.entries(entry)
    .filter(([name]) => !hiddenFields.has(name))
    .map(([name, value]) => {
      const stack = (value as { stack?: unknown } | null)?.stack;
      if (typeof stack === 'string') return `\n    ${stack.replaceAll('\n', '\n    ')}`;
      return `${name}=${typeof value === 'string' && /^\S*$/.test(value) ? value : JSON.stringify(value)}`;
    });
  return [String(entry['msg'] ?? ''), ...fields].filter(Boolean).join(' ');
}
