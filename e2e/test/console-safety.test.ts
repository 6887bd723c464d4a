/// <reference lib="dom" />

import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Usage, User } from '@latchkey/contracts';
import { waitFor } from '@latchkey/testing';
import type { Browser, Page } from 'playwright-core';
import { launchBrowser, Visitor } from '../src/browser.js';
import { ask, noteSecret, Person } from '../src/caller.js';
import { placeOfRun, readyOf } from '../src/stack.js';

/* What the console must never do, in Debian's Chromium against the real stack. */

const place = placeOfRun();
const { url } = readyOf(place);
let browser: Browser;
let admin: Person;
let visitor: Visitor;

beforeAll(async () => {
  browser = await launchBrowser();
  admin = await Person.admin(place);
});
afterAll(() => browser.close());
beforeEach(async () => {
  visitor = await Visitor.arrive(browser, place, { as: admin });
});
afterEach(() => visitor.leave());

/** All data of the page: its DOM, storage, address, history, caches of responses, and the fields' values. */
async function traces(page: Page): Promise<string> {
  return page.evaluate(async () => {
    interface Fiber {
      memoizedProps: { client?: { getQueryCache(): unknown; getMutationCache(): unknown } } | null;
      child: Fiber | null;
      sibling: Fiber | null;
    }
    const root = document.getElementById('root') as unknown as Record<string, Fiber>;
    const key = Object.keys(root).find((name) => name.startsWith('__reactContainer'));
    const clients: unknown[] = [];
    const walk = (fiber: Fiber | null | undefined): void => {
      if (!fiber || clients.length > 0) return;
      const client = fiber.memoizedProps?.client;
      if (client) {
        type Cache = { getAll(): { state: unknown; queryKey?: unknown; options?: unknown }[] };
        for (const cache of [client.getQueryCache(), client.getMutationCache()] as Cache[])
          for (const { state, queryKey } of cache.getAll()) clients.push([queryKey, state]);
      }
      walk(fiber.child);
      walk(fiber.sibling);
    };
    walk(root[key ?? '']);
    if (clients.length === 0) throw new Error('the cache of responses was not found');
    const names = 'caches' in globalThis ? await caches.keys() : [];
    return [
      document.documentElement.outerHTML,
      ...[...document.querySelectorAll('input, textarea')].map((field) => (field as HTMLInputElement).value),
      JSON.stringify({ ...localStorage }),
      JSON.stringify({ ...sessionStorage }),
      JSON.stringify((await indexedDB.databases()).map(({ name }) => name)),
      JSON.stringify(names),
      location.href,
      JSON.stringify(history.state),
      document.title,
      JSON.stringify(clients),
    ].join('\n');
  });
}

it('leaves nothing of a secret behind once the panel that shows it is left', async () => {
  const { page } = visitor;
  const addresses: string[] = [];
  page.on('request', (request) => addresses.push(request.url(), request.headers()['referer'] ?? ''));
  await visitor.go('/api-tokens/new?name=traces&scopes=demo:read');
  await page.getByRole('button', { name: 'Create token' }).click();
  await page.getByRole('button', { name: 'Reveal' }).click();
  const secret = (await page.getByTestId('secret').textContent()) ?? '';
  noteSecret(place, secret);
  const tail = secret.slice(11);
  expect(await traces(page)).toContain(tail);
  await page.getByLabel('I have stored it in a safe place').check();
  await page.getByRole('button', { name: 'Done' }).click();
  await page.getByRole('heading', { level: 1, name: 'traces' }).waitFor();
  await visitor.idle();
  expect(await traces(page)).not.toContain(tail);
  await page.goBack();
  await page.getByRole('heading', { level: 1, name: 'Create an API token' }).waitFor();
  expect(await traces(page)).not.toContain(tail);
  expect(addresses.join('\n')).not.toContain(tail);
  expect(visitor.faults).toEqual([]);
});

it('asks before the panel is closed or reloaded with the secret on it', async () => {
  const { page } = visitor;
  await visitor.go('/api-tokens/new?name=guarded');
  await page.getByRole('button', { name: 'Create token' }).click();
  await page.getByRole('button', { name: 'Reveal' }).click();
  noteSecret(place, (await page.getByTestId('secret').textContent()) ?? '');
  const asked = page.waitForEvent('dialog');
  void page.close({ runBeforeUnload: true });
  const dialog = await asked;
  expect(dialog.type()).toBe('beforeunload');
  await dialog.dismiss();
  await page.getByRole('heading', { name: 'Copy your token now' }).waitFor();
});

it('is refused by every page that would frame it', async () => {
  const server = createServer((_, response) => {
    response.writeHead(200, { 'content-type': 'text/html' }).end(`<iframe src="${url}/#/api-tokens"></iframe>`);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  try {
    const { page } = visitor;
    await page.goto(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`);
    await waitFor(() => visitor.faults.some((fault) => fault.includes('frame-ancestors')), { what: 'the violation' });
    const framed = page.frames().find((frame) => frame !== page.mainFrame());
    expect(await framed?.locator('#root').count()).toBe(0);
  } finally {
    server.closeAllConnections();
    server.close();
  }
});

it('runs no inline script, no string as code, and loads nothing from elsewhere: each attempt is refused and noticed', async () => {
  const { page } = visitor;
  await visitor.go('/api-tokens');
  await page.getByRole('heading', { level: 1, name: 'API Tokens' }).waitFor();
  const attempts: [directive: string, code: string][] = [
    [
      'script-src',
      "document.body.append(Object.assign(document.createElement('script'), { textContent: 'window.ran = 1' }))",
    ],
    ['img-src', "document.body.append(Object.assign(new Image(), { src: 'http://127.0.0.1:9/x.png' }))"],
    ['connect-src', "void fetch('http://127.0.0.1:9/').catch(() => 0)"],
    ['style-src', "document.body.insertAdjacentHTML('beforeend', '<p style=\"color:red\">x</p>')"],
    ['script-src', "document.body.insertAdjacentHTML('beforeend', '<img src=/favicon.svg onload=\"window.ran=1\">')"],
  ];
  for (const [directive, code] of attempts) {
    visitor.faults.length = 0;
    await page.evaluate(code);
    await waitFor(() => visitor.faults.some((fault) => fault.includes(directive)), {
      what: `${directive} being refused`,
    });
  }
  expect(await page.evaluate(() => 'ran' in window)).toBe(false);
});

it('shows hostile text as text: names, descriptions, metadata, comments, programs, projects, people', async () => {
  const attacks = ['<img src=x onerror=alert(1)>', '"><script>alert(1)</script>', "javascript:alert('1')"];
  const { page } = visitor;
  page.on('dialog', (dialog) => {
    visitor.faults.push('a script ran');
    void dialog.dismiss();
  });
  const placed = await Promise.all(
    attacks.map(async (attack) => {
      const project = await admin.project(attack);
      await admin.call('PATCH', `/v1/projects/${project.id}`, { json: { description: attack } });
      const email = `x${Math.random().toString(36).slice(2, 10)}@example.org`;
      const user = await admin.call<User>('POST', '/v1/users', { json: { email, name: attack, role: 'member' } });
      await admin.call('PUT', `/v1/projects/${project.id}/members/${user.body.id}`, { json: { role: 'viewer' } });
      const named = { name: attack, description: attack, metadata: { note: attack } };
      const token = await admin.issue({ ...named, kind: 'prj', projectId: project.id, scopes: ['demo:read'] });
      await ask(`${url}/demo/whoami`, 'GET', { token: token.secret, headers: { 'user-agent': attack } });
      return { attack, project, token };
    }),
  );
  for (const { token } of placed) {
    const callers = async () => (await admin.call<Usage>('GET', `/v1/tokens/${token.id}/usage`)).body.callers;
    await waitFor(async () => (await callers()).length > 0, {
      timeoutMs: 30_000,
      intervalMs: 200,
      what: 'the call counted',
    });
  }
  for (const { attack, project, token } of placed) {
    const shows = async (hash: string, least: number) => {
      await visitor.go(hash);
      await waitFor(async () => (await page.getByText(attack).count()) >= least, {
        timeoutMs: 20_000,
        what: `${attack} as text on ${hash}`,
      });
    };
    await shows(`/api-tokens?q=${encodeURIComponent(attack)}`, 1);
    // Name, description, metadata, owner, and the program that called with it.
    await shows(`/api-tokens/${token.id}`, 5);
    await shows('/projects', 2);
    await shows(`/projects/${project.id}`, 3);
    await shows('/people', 1);
    await visitor.go(`/api-tokens/${token.id}`);
    await page.getByRole('button', { name: 'Revoke' }).click();
    await page.getByLabel('Comment for the audit log').fill(attack);
    await page.getByRole('button', { name: 'Revoke now' }).click();
    await page
      .getByRole('dialog')
      .getByText(/Refused everywhere/)
      .waitFor();
  }
  await visitor.go('/audit');
  await page
    .getByText(attacks[2] ?? '')
    .first()
    .waitFor();
  await visitor.go(`/refused?requestId=${encodeURIComponent(attacks[0] ?? '')}`);
  await visitor.idle();
  expect(visitor.faults).toEqual([]);
});

it('sends the headers that enforce this, compressed files, and file names that can be cached forever', async () => {
  const response = await ask<string>(`${url}/`);
  const policy = response.headers.get('content-security-policy') ?? '';
  expect(policy).toMatch(/^default-src 'none'; script-src 'self'; style-src 'self';/);
  expect(policy).toContain("frame-ancestors 'none'");
  expect(policy).not.toMatch(/unsafe-inline|unsafe-eval|\*/);
  expect(response.headers.get('x-content-type-options')).toBe('nosniff');
  expect(response.headers.get('x-frame-options')).toBe('DENY');
  expect(response.headers.get('referrer-policy')).toBe('no-referrer');
  const files = [...String(response.body).matchAll(/(?:src|href)="(\/assets\/[^"]+)"/g)].map(([, file]) => file ?? '');
  expect(files.length).toBeGreaterThan(1);
  for (const file of files) {
    const { headers } = await ask(url + file, 'GET', { headers: { 'accept-encoding': 'br' } });
    expect(headers.get('cache-control')).toBe('public, max-age=31536000, immutable');
    // Below that, the headers of a compressed response weigh more than it saves.
    if (Number(headers.get('content-length')) >= 500)
      expect([file, headers.get('content-encoding')]).toEqual([file, 'br']);
  }
});
