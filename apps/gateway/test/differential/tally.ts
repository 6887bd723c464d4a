import type { Outcome } from './in-process.js';
import type { SocketOutcome } from './over-sockets.js';
import type { Reading } from './reading.js';

const EXAMPLES_MAX = 20;
/** llhttp knows a list of methods; what is refused by it for another method than those says nothing about framing. */
const UNKNOWN_METHOD = 'HPE_INVALID_METHOD';

/** Counts what the programs agree and disagree about. */
export class Tally {
  readonly #counts = new Map<string, number>();
  /** What failed, with the command that runs it again; of many the first. */
  readonly failed: string[] = [];
  #failures = 0;
  #streams = 0;
  #messages = 0;
  #overSockets = 0;

  constructor(private readonly seed: number) {}

  get failures(): number {
    return this.#failures;
  }

  addInProcess({ kind, index, case: { bytes }, ours, comparison, forwarding }: Outcome): void {
    this.#streams++;
    this.#messages += ours.messages.length;
    const { verdict, why } = comparison;
    this.#count(`${kind}s, llhttp: ${verdict === 'same' ? alike(ours) : `${LABEL[verdict]}: ${why}`}`);
    if (verdict === 'differs') this.#fail(kind, index, bytes, `llhttp: ${why}`);
    if (verdict === 'lax' && why !== UNKNOWN_METHOD)
      this.#fail(kind, index, bytes, `llhttp, the only other, refuses it: ${why}`);
    if (forwarding !== '') this.#fail(kind, index, bytes, `as forwarded: ${forwarding}`);
  }

  addOverSockets({ kind, index, bytes, minor, comparisons }: SocketOutcome): void {
    this.#overSockets++;
    for (const [name, { verdict, why }] of comparisons) {
      const reason = verdict === 'lax' || verdict === 'differs' ? `: ${why}` : '';
      const program = name === 'ours' ? 'the engine over sockets' : name;
      this.#count(`${kind}s, ${program}: ${LABEL[verdict]}${reason}`);
      // The engine over sockets and without them are the same program; to HTTP/1.0 it cannot say that a response was cut.
      if (verdict === 'differs' || (name === 'ours' && (verdict === 'lax' || (verdict === 'strict' && minor > 0))))
        this.#fail(kind, index, bytes, `${program}: ${verdict} ${why}`);
    }
    const others = [...comparisons].filter(([name]) => name !== 'ours');
    if (others.length > 1 && others.every(([, { verdict }]) => verdict === 'lax'))
      this.#fail(kind, index, bytes, 'all others refuse it');
  }

  #count(key: string): void {
    this.#counts.set(key, (this.#counts.get(key) ?? 0) + 1);
  }

  #fail(kind: string, index: number, bytes: Buffer, why: string): void {
    this.#failures++;
    if (this.failed.length < EXAMPLES_MAX)
      this.failed.push(
        `FAILED ${kind}:${index} ${why}\n  ${JSON.stringify(bytes.toString('latin1')).slice(0, 600)}\n` +
          `  again: npm run differential -- --seed ${this.seed} --only ${kind}:${index}`,
      );
  }

  report(): string {
    const rows = [...this.#counts]
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, count]) => `${String(count).padStart(9)}  ${key}`);
    return [...rows, ...this.failed].join('\n');
  }

  summary(): string {
    return `${this.#streams} streams with ${this.#messages} messages in process, ${this.#overSockets} streams over sockets, ${this.failures} failures`;
  }
}

/** How both read it. */
function alike({ messages, end }: Reading): string {
  const last = messages.at(-1);
  if (end === 'refused') return last?.complete ? 'both refuse what is behind the first message' : 'both refuse it';
  if (!last) return 'both wait for a head';
  return `both accept ${messages.length} messages${last.complete ? '' : ', the last not complete'}`;
}

const LABEL = {
  same: 'read alike',
  strict: 'only ours refuses',
  lax: 'only the other refuses',
  differs: 'ANOTHER END',
} as const;
