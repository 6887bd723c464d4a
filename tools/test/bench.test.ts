import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import path from 'node:path';
import { afterEach, describe, expect, test } from '@jest/globals';
import { barsSvg, escaped, markdownTable, textTable } from '../../bench/lib/output.mjs';
import { listOf, type Started, start } from '../../bench/lib/processes.mjs';
import { pairedRatios, percentileOf, spread, summary } from '../../bench/lib/statistics.mjs';
import { root } from '../lib/repository.mjs';

const upTo = (n: number) => Array.from({ length: n }, (_, i) => i + 1);

describe('figures', () => {
  test.each([
    [100, 0.99, 99],
    [100, 0.5, 50],
    [100, 0.07, 7],
    [101, 0.99, 100],
    [3, 0.5, 2],
    [1, 0.99, 1],
    [10, 1, 10],
    [10, 0, 1],
  ])('of %i values, a share of %f lies at or below %i', (count, share, value) => {
    expect(percentileOf(upTo(count), share)).toBe(value);
  });

  test('a percentile of nothing is no number', () => {
    expect(percentileOf([], 0.5)).toBeNaN();
  });

  test('a summary orders numbers as numbers, and leaves them as they were', () => {
    const values = [10, 9, 100, 1];
    expect(summary(values)).toEqual({ median: 9.5, low: 1, high: 100 });
    expect(values).toEqual([10, 9, 100, 1]);
    expect(spread(summary([1, 3, 2]), 1)).toBe('2.0 (1.0–3.0)');
  });

  test('ratios are taken within a round: what slows a round down slows both', () => {
    expect(pairedRatios([10, 100, 1_000], [5, 50, 500])).toEqual({ median: 2, low: 2, high: 2 });
    expect(() => pairedRatios([1], [1, 2])).toThrow('1 rounds cannot be paired with 2');
  });

  test("the kernel's lists of processors", () => {
    expect(listOf('0-2,5')).toEqual([0, 1, 2, 5]);
    expect(listOf('3')).toEqual([3]);
  });
});

describe('output', () => {
  test('columns of text are as wide as their widest cell, also of a row that has fewer', () => {
    expect(textTable(['a', 'b'], [['long', '1'], ['x']])).toBe('a     b\nlong  1\nx');
  });

  test('a bar in a cell does not end it in Markdown', () => {
    expect(markdownTable(['a', 'b'], [['x|y']])).toBe('| a | b |\n| --- | --: |\n| x\\|y |  |');
  });

  test('names and titles cannot become part of the picture', () => {
    expect(escaped(`<a b="c">&`)).toBe('&lt;a b=&quot;c&quot;&gt;&amp;');
    const bars = [{ name: 'nginx <1 & "2"', median: 2, low: 1, high: 4 }];
    const picture = barsSvg({ title: '</svg>', subtitle: 'a & b', note: '<', unit: '<µs>', digits: 1, bars });
    expect(picture.match(/<\/svg>/g)).toHaveLength(1);
    expect(picture).toContain('nginx &lt;1 &amp; &quot;2&quot;');
    expect(picture).not.toMatch(/&(?!amp;|lt;|gt;|quot;)/);
  });

  test('lengths are in proportion, to the highest value', () => {
    const bar = (name: string, median: number) => ({ name, median, low: median, high: median });
    const bars = [bar('a', 10), bar('b', 5), bar('c', 0)];
    const picture = barsSvg({ title: '', subtitle: '', note: '', unit: '', digits: 0, bars });
    const [a, b, c] = [...picture.matchAll(/<rect [^>]*width="([\d.]+)"/g)].map(([, width]) => Number(width));
    expect(b).toBeCloseTo(a! / 2);
    expect(c).toBe(0);
  });
});

describe('the load generator', () => {
  let server: Server | undefined;
  let load: Started | undefined;
  const request = 'GET / HTTP/1.1\r\nHost: bench\r\n\r\n';

  afterEach(async () => {
    await load?.stop();
    server?.close();
    server?.closeAllConnections();
  });

  async function run(respond: (n: number) => { status: number; afterMs: number }, job: object) {
    let n = 0;
    server = createServer((_req, res) => {
      const { status, afterMs } = respond(n++);
      if (status === 0) res.destroy();
      else setTimeout(() => res.writeHead(status, { 'content-length': 2 }).end('ok'), afterMs);
    });
    await new Promise<void>((resolve) => server!.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as AddressInfo;
    load = await start({ args: [path.join(root, 'bench/peers/load.mjs')], ready: null });
    return JSON.parse(await load.ask(JSON.stringify({ port, request, ...job }))) as {
      count: number;
      errors: number;
      p99: number;
    };
  }

  test('counts latency from the intended time: one slow response delays all that were due meanwhile', async () => {
    const slowFirst = (n: number) => ({ status: 200, afterMs: n === 0 ? 600 : 0 });
    const result = await run(slowFirst, { connections: 1, ms: 1_000, rate: 200 });
    expect(result).toMatchObject({ count: 200, errors: 0 });
    // Of 200 requests the first alone is above the 99th percentile; those due after it waited up to 600 ms.
    expect(result.p99).toBeGreaterThan(400);
  });

  test('counts other statuses as errors, also among responses of the same size', async () => {
    const oneRefused = (n: number) => ({ status: n === 5 ? 401 : 200, afterMs: 0 });
    expect(await run(oneRefused, { connections: 1, ms: 500, rate: 40 })).toMatchObject({ count: 20, errors: 1 });
  });

  test.each([
    ['at a rate', { rate: 100 }],
    ['without one', {}],
  ])('ends with an error when the server closes a connection, %s', async (_, more) => {
    const oneClosed = (n: number) => ({ status: n === 5 ? 0 : 200, afterMs: 0 });
    const { errors } = await run(oneClosed, { connections: 2, ms: 300, ...more });
    expect(errors).toBeGreaterThan(0);
  });
});
