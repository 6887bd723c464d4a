import { readTarget } from '../../src/http/index.js';
import { caseOf, type Kind } from './in-process.js';
import { isKnownMethod, llhttpRequests, llhttpResponse } from './llhttp.js';
import { readRequests, readResponse } from './ours.js';
import { type Origin, type ProxyProgram, proxyRequests, proxyResponse } from './proxies.js';
import { cutsOf } from './random.js';
import { type Comparison, compare, READS_ON, type Reading } from './reading.js';

/** Behind the last chunk. HAProxy obeys it there and ends the connection, although a trailer frames nothing (RFC 9110 section 6.5.1). */
const CLOSING_TRAILER = /\r\n0+\r\n(?:[^\r\n]+\r\n)*(?:proxy-)?connection:[^\r\n]*close/i;

export interface SocketOutcome {
  readonly kind: Kind;
  readonly index: number;
  readonly bytes: Buffer;
  /** Minor version of a response's request. */
  readonly minor: number;
  readonly ours: Reading;
  readonly comparisons: ReadonlyMap<string, Comparison>;
}

/** Runs one case through each proxy. */
export async function runOverSockets(
  seed: number,
  kind: Kind,
  index: number,
  proxies: readonly ProxyProgram[],
  origin: Origin,
): Promise<SocketOutcome> {
  const { made, random } = caseOf(seed, kind, index);
  const { bytes, method } = made;
  const cuts = cutsOf(random, bytes.length);
  const ours = kind === 'request' ? readRequests(bytes, cuts) : readResponse(bytes, cuts, method);
  const read = async (proxy: ProxyProgram): Promise<Comparison> => {
    if (kind === 'request') {
      const sent = inOriginForm(seen(ours, proxy));
      let comparison = compare(sent, inOriginForm(await proxyRequests(proxy, origin, made, ours)), false);
      // HAProxy can drop a request behind which the caller has ended its side, and one for which it has taken an idle
      // connection that the origin was closing.
      for (let tries = 0; tries < 3 && comparison.verdict === 'differs' && proxy.name !== 'ours'; tries++)
        comparison = compare(sent, inOriginForm(await proxyRequests(proxy, origin, made, ours, true)), false);
      const isEndedByTrailer = comparison.why === READS_ON && CLOSING_TRAILER.test(bytes.toString('latin1'));
      return proxy.name === 'haproxy' && isEndedByTrailer ? { verdict: 'same', why: '' } : comparison;
    }
    const mine = finalOf(ours);
    // nginx takes an interim response for the final one.
    if (proxy.name === 'nginx' && mine.messages.length < ours.messages.length) return { verdict: 'same', why: '' };
    return compare(mine, finalOf(await proxyResponse(proxy, origin, `${proxy.name}-${index}`, made)), false);
  };
  const comparisons = new Map(
    await Promise.all(proxies.map(async (proxy) => [proxy.name, await read(proxy)] as const)),
  );
  const llhttp = kind === 'request' ? llhttpRequests(bytes, cuts) : llhttpResponse(bytes, cuts, method);
  comparisons.set('llhttp', compare(ours, llhttp));
  return { kind, index, bytes, minor: made.minor, ours, comparisons };
}

/**
 * What the origin can see of requests: those before the first whose method it does not know, with the target that the
 * gateway forwards.
 */
function seen(reading: Reading, proxy: ProxyProgram): Reading {
  const unknown = reading.messages.findIndex(({ start }) => !isKnownMethod(start.slice(0, start.indexOf(' '))));
  const messages = unknown < 0 ? reading.messages : reading.messages.slice(0, unknown);
  const end = unknown < 0 ? reading.end : 'closed';
  if (proxy.name !== 'ours') return { ...reading, messages, end };
  return {
    ...reading,
    end,
    messages: messages.map((message) => ({ ...message, start: forwardedStart(message.start) })),
  };
}

/** Without the authority of targets in absolute form, which HAProxy passes on and nginx does not. */
function inOriginForm(reading: Reading): Reading {
  const messages = reading.messages.map((message) => ({
    ...message,
    start: message.start.replace(/ https?:\/\/[^/?#]*/i, ' '),
  }));
  return { ...reading, messages };
}

function forwardedStart(start: string): string {
  const space = start.indexOf(' ');
  // In absolute form only the path goes on, and the authority in place of Host.
  const [, path] = /^https?:\/\/[^/?#]*(.*)$/i.exec(start.slice(space + 1)) ?? [];
  const target = readTarget(path === undefined ? start.slice(space + 1) : path || '/');
  if ('detail' in target) throw new Error(`${start} was accepted`);
  return `${start.slice(0, space + 1)}${target.path}${target.query}`;
}

/** Interim responses left out: a proxy need not forward them, and not all do. */
function finalOf(reading: Reading): Reading {
  return { ...reading, messages: reading.messages.filter(({ start }) => Number(start) >= 200 || start === '101') };
}
