/**
 * What people feel of the console, in Debian's Chromium against the launcher's whole stack, measured by the browser itself.
 *
 * First load: signed in, nothing cached, processor slowed four times; the largest contentful paint (the browser's own
 * figure) of each run, when the first row of the table stands there, and what was sent. Scrolling: a list of ten
 * thousand tokens from top to end with the wheel, at the processor's own speed; every frame, and every task of the main
 * thread from the browser's trace.
 */
import { launchBrowser, Visitor } from '@latchkey/e2e/browser';
import { Person } from '@latchkey/e2e/caller';
import { startStack } from '@latchkey/e2e/stack';
import pg from 'pg';
import { options } from './lib/options.mjs';
import { FILL_OWNERS, fillTokens } from './lib/tokens.mjs';
import { percentile, report } from './lib.mjs';

const { runs, tokens, step } = options('console', 'First load of the tokens page, and scrolling through a long list.', {
  runs: [15, 'first loads that are measured'],
  tokens: [10_000, 'tokens in the list'],
  step: [200, 'pixels scrolled in each frame: 200 are as many rows a second'],
});
const FRAME_MS = 1_000 / 60;
const BROWSER_STARTS_MS = 2_000;
const LCP_MS_MAX = 1_200;
const SCRIPT_BYTES_MAX = 250_000;

/** What the page is asked to remember of itself. */
const WATCH = `
  globalThis.seen = { lcp: 0, element: '', firstRow: 0 };
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) {
      seen.lcp = entry.startTime;
      seen.element = (entry.element?.tagName ?? '') + '.' + (entry.element?.className ?? '') + ' ' + (entry.element?.textContent ?? '').slice(0, 40);
    }
  }).observe({ type: 'largest-contentful-paint', buffered: true });
  new MutationObserver((_, watcher) => {
    if (!document.querySelector('.tokens-row')) return;
    seen.firstRow = performance.now();
    watcher.disconnect();
  }).observe(document, { childList: true, subtree: true });`;

/** One load of the tokens page in a browser that has never been here. */
async function firstLoad(browser, place, person) {
  const visitor = await Visitor.arrive(browser, place, { as: person });
  const { page, context } = visitor;
  const cdp = await context.newCDPSession(page);
  await cdp.send('Network.enable');
  await cdp.send('Network.setCacheDisabled', { cacheDisabled: true });
  await cdp.send('Emulation.setCPUThrottlingRate', { rate: 4 });
  const types = new Map();
  const sent = { Script: 0, Stylesheet: 0, all: 0, requests: 0 };
  cdp.on('Network.responseReceived', ({ requestId, type }) => types.set(requestId, type));
  cdp.on('Network.loadingFinished', ({ requestId, encodedDataLength }) => {
    const type = types.get(requestId);
    if (type in sent) sent[type] += encodedDataLength;
    sent.all += encodedDataLength;
    sent.requests++;
  });
  await page.addInitScript(WATCH);
  // The browser's own pages (its address bar) start with each window, and would be measured along.
  await page.waitForTimeout(BROWSER_STARTS_MS);
  await visitor.go('/api-tokens');
  await page.locator('.tokens-row').first().waitFor();
  await visitor.idle();
  const seen = await page.evaluate(() => globalThis.seen);
  const fcp = await page.evaluate(() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0);
  const scripts = await page.evaluate(() =>
    performance
      .getEntriesByType('resource')
      .filter(({ name }) => name.endsWith('.js'))
      .map(({ name }) => name),
  );
  await visitor.leave();
  return { ...seen, fcp, sent, scripts };
}

/** The size of the scripts as gzip, whichever encoding the browser chose. */
async function gzipBytes(urls) {
  const { gzipSync } = await import('node:zlib');
  let bytes = 0;
  for (const url of new Set(urls)) bytes += gzipSync(Buffer.from(await (await fetch(url)).arrayBuffer())).length;
  return bytes;
}

/** Scrolls from top to end; returns each frame's length and the main thread's tasks, in milliseconds. */
async function scrollThrough(browser, place, person) {
  const visitor = await Visitor.arrive(browser, place, { as: person });
  const { page, context } = visitor;
  const cdp = await context.newCDPSession(page);
  await visitor.go('/api-tokens');
  await page.locator('.tokens-row').first().waitFor();
  await visitor.idle();
  await browser.startTracing(page, {
    categories: ['toplevel', 'disabled-by-default-devtools.timeline', 'devtools.timeline'],
  });
  const frames = await page.evaluate(
    ({ step, count }) =>
      new Promise((resolve) => {
        const lengths = [];
        let before = performance.now();
        const frame = (now) => {
          lengths.push(now - before);
          before = now;
          const rows = document.querySelector('.tokens')?.getAttribute('aria-rowcount');
          const atEnd = window.scrollY + window.innerHeight >= document.documentElement.scrollHeight - 2;
          if (atEnd && Number(rows) > count) return resolve(lengths.slice(1));
          window.scrollBy(0, step);
          requestAnimationFrame(frame);
        };
        requestAnimationFrame(frame);
      }),
    { step, count: tokens },
  );
  const trace = JSON.parse((await browser.stopTracing()).toString());
  const main = trace.traceEvents.find(({ name, args }) => name === 'thread_name' && args.name === 'CrRendererMain');
  const tasks = trace.traceEvents
    .filter(({ name, dur, pid, tid }) => name === 'RunTask' && dur && pid === main?.pid && tid === main?.tid)
    .map(({ dur }) => dur / 1_000);
  await cdp.send('Performance.enable');
  await cdp.send('HeapProfiler.collectGarbage');
  const { metrics } = await cdp.send('Performance.getMetrics');
  const metric = (name) => metrics.find((entry) => entry.name === name)?.value ?? 0;
  const rows = await page.locator('.tokens-row').count();
  const elements = await page.evaluate(() => document.querySelectorAll('*').length);
  const { faults } = visitor;
  await visitor.leave();
  return { frames, tasks, heap: metric('JSHeapUsedSize'), elements, rows, faults };
}

const stack = await startStack({ LOG_LEVEL: 'warn' });
const { place } = stack;
const browser = await launchBrowser();
try {
  const client = new pg.Client(stack.ready().databaseUrl);
  await client.connect();
  await client.query(FILL_OWNERS);
  await fillTokens(client, 0, tokens);
  await client.end();
  const person = await Person.admin(place);

  await firstLoad(browser, place, person);
  const loads = [];
  for (let run = 0; run < runs; run++) loads.push(await firstLoad(browser, place, person));
  const of = (name) => loads.map((load) => load[name]);
  const { scripts, sent, element } = loads[0];
  console.log(
    `  first load of the tokens page, ${runs} runs, nothing cached, processor slowed 4 times (painted: ${element})`,
  );
  report('largest contentful paint, median', percentile(of('lcp'), 0.5), LCP_MS_MAX, ' ms');
  report('largest contentful paint, least', Math.min(...of('lcp')), undefined, ' ms');
  report('largest contentful paint, most', Math.max(...of('lcp')), undefined, ' ms');
  report('first contentful paint, median', percentile(of('fcp'), 0.5), undefined, ' ms');
  report('first row of the table, median', percentile(of('firstRow'), 0.5), undefined, ' ms');
  report('scripts, gzipped', (await gzipBytes(scripts)) / 1_000, SCRIPT_BYTES_MAX / 1_000, ' kB');
  report('scripts, as sent (brotli)', sent.Script / 1_000, undefined, ' kB');
  report('style sheets, as sent (brotli)', sent.Stylesheet / 1_000, undefined, ' kB');
  report('everything, as sent', sent.all / 1_000, undefined, ' kB');
  report('requests', sent.requests);

  const { frames, tasks, heap, elements, rows, faults } = await scrollThrough(browser, place, person);
  const dropped = frames.reduce((sum, ms) => sum + Math.max(0, Math.round(ms / FRAME_MS) - 1), 0);
  console.log(`  ${tokens} tokens scrolled from top to end, ${step} pixels in a frame`);
  report('frames', frames.length);
  report('frames longer than 50 ms, share', (100 * frames.filter((ms) => ms > 50).length) / frames.length, 1, ' %');
  report('frame, median', percentile(frames, 0.5), undefined, ' ms');
  report('frame, 99th percentile', percentile(frames, 0.99), undefined, ' ms');
  report('frame, longest', Math.max(...frames), undefined, ' ms');
  report('dropped frames, share', (100 * dropped) / (frames.length + dropped), 5, ' %');
  report('tasks of the main thread longer than 50 ms', tasks.filter((ms) => ms > 50).length);
  report('task of the main thread, longest', Math.max(...tasks), undefined, ' ms');
  report('heap of the page at the end', heap / 1_048_576, 150, ' MB');
  report('elements in the page at the end', elements, 1_500);
  report('rows in the page at the end', rows, 60);
  report('refused by the page’s policy, and errors', faults.length, 0);
} finally {
  await browser.close();
  await stack.stop();
}
