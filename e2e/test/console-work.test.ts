/// <reference lib="dom" />

import { request } from 'node:http';
import type { AuditEvent, Token } from '@latchkey/contracts';
import { waitFor } from '@latchkey/testing';
import type { Browser } from 'playwright-core';
import { launchBrowser, Visitor } from '../src/browser.js';
import { ask, noteSecret, Person } from '../src/caller.js';
import { placeOfRun, readyOf } from '../src/stack.js';

/* Work with many tokens: order, forms filled in advance, rotation, hygiene, projects, assistants, the audit log. */

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
afterEach(async () => {
  const { faults } = visitor;
  await visitor.leave();
  expect(faults).toEqual([]);
});

const unique = (name: string) => `${name} ${Math.random().toString(36).slice(2, 8)}`;
const HOUR_S = 3_600;
const DAY_S = 24 * HOUR_S;

/** The names in the table, from the top. */
const names = () => visitor.page.locator('.token-name a').allTextContents();

/** Records the secret shown for the search for leaks, and leaves the panel. */
async function leavePanel(): Promise<string> {
  const { page } = visitor;
  await page.getByRole('button', { name: 'Reveal' }).click();
  const secret = (await page.getByTestId('secret').textContent()) ?? '';
  noteSecret(place, secret);
  await page.getByLabel('I have stored it in a safe place').check();
  await page.getByRole('button', { name: 'Done' }).click();
  return secret;
}

describe('the table', () => {
  it('is sorted by its columns, at the server, and the address has filters and order', async () => {
    const { page } = visitor;
    const tag = unique('order');
    const issue = (name: string, expiresInSeconds?: number) =>
      admin.issue({ name: `${tag} ${name}`, ...(expiresInSeconds && { expiresInSeconds }) });
    await issue('b', 2 * DAY_S);
    await issue('c');
    await issue('a', 90 * DAY_S);
    const expected = (...order: string[]) => order.map((name) => `${tag} ${name}`);
    const shows = (...order: string[]) =>
      waitFor(async () => (await names()).join() === expected(...order).join(), { what: `the order ${order.join()}` });
    await visitor.go(`/api-tokens?q=${encodeURIComponent(tag)}`);
    await shows('a', 'c', 'b');
    const head = (name: string) => page.getByRole('columnheader', { name });
    await head('Name').getByRole('button').click();
    await shows('a', 'b', 'c');
    expect(await head('Name').getAttribute('aria-sort')).toBe('ascending');
    await head('Name').getByRole('button').click();
    await shows('c', 'b', 'a');
    await head('Expires').getByRole('button').click();
    await shows('b', 'a', 'c');
    expect(page.url()).toContain('sort=expires');
    await page.reload();
    await shows('b', 'a', 'c');
    await page.getByRole('link', { name: `${tag} b` }).click();
    await page.getByRole('heading', { level: 1, name: `${tag} b` }).waitFor();
    await page.goBack();
    await shows('b', 'a', 'c');
  });

  it('on a phone offers the same orders in a list', async () => {
    await visitor.leave();
    visitor = await Visitor.arrive(browser, place, { as: admin, width: 390 });
    const tag = unique('phone');
    for (const name of ['y', 'x']) await admin.issue({ name: `${tag} ${name}` });
    await visitor.go(`/api-tokens?q=${encodeURIComponent(tag)}`);
    await visitor.choose('Order', 'Name, Z to A');
    await waitFor(async () => (await names()).join() === `${tag} y,${tag} x`, { what: 'the order by name' });
  });

  it('of a project shows what is the project’s; the list of all can be narrowed to it, and to one’s own', async () => {
    const { page } = visitor;
    const tag = unique('owners');
    const projects = [await admin.project(`${tag} one`), await admin.project(`${tag} two`)];
    for (const { id, name } of projects) await admin.issue({ name, kind: 'prj', projectId: id });
    await admin.issue({ name: `${tag} mine` });
    await visitor.go(`/projects/${projects[0]?.id}/api-tokens`);
    await page.getByRole('heading', { level: 1, name: `API tokens of ${tag} one` }).waitFor();
    await waitFor(async () => (await names()).join() === `${tag} one`, { what: 'the first project’s token' });
    await visitor.go('/projects');
    await page
      .getByRole('listitem')
      .filter({ hasText: `${tag} two` })
      .getByRole('link', { name: 'API tokens' })
      .click();
    await waitFor(async () => (await names()).join() === `${tag} two`, { what: 'the second project’s token' });
    await visitor.go(`/api-tokens?q=${encodeURIComponent(tag)}`);
    await visitor.choose('Owner', 'Mine');
    await waitFor(async () => (await names()).join() === `${tag} mine`, { what: 'one’s own token' });
    await visitor.choose('Owner', `${tag} one`);
    await waitFor(async () => (await names()).join() === `${tag} one`, { what: 'the project’s token' });
  });
});

describe('creating', () => {
  it('is filled in advance by the address, and takes each end that it offers', async () => {
    const { page } = visitor;
    const project = await admin.project(unique('Prefilled'));
    const cases: [choice: string, days: number | null][] = [
      ['7 days', 7],
      ['90 days', 90],
      ['Never', null],
    ];
    for (const [choice, days] of cases) {
      const name = unique('prefilled');
      const query = new URLSearchParams({
        name,
        description: 'by link',
        scopes: 'demo:read,demo:write',
        projectId: project.id,
      });
      await visitor.go(`/api-tokens/new?${query}`);
      await page.reload();
      await page.getByRole('radio', { name: choice }).check();
      if (days === null) await page.getByText('works until somebody remembers to revoke it').waitFor();
      await page.getByRole('button', { name: 'Create token' }).click();
      await leavePanel();
      await page.getByRole('heading', { level: 1, name }).waitFor();
      const token = await admin.token(new URL(page.url()).hash.split('/')[2] ?? '');
      expect(token).toMatchObject({
        name,
        description: 'by link',
        scopes: ['demo:read', 'demo:write'],
        owner: { id: project.id },
      });
      const lasts = token.expiresAt && (Date.parse(token.expiresAt) - Date.parse(token.createdAt)) / 1_000 / DAY_S;
      expect(lasts && Math.round(lasts)).toBe(days);
    }
  });

  it('names the field that is wrong', async () => {
    const { page } = visitor;
    await visitor.go('/api-tokens/new?name=wrong%20address');
    await page.getByRole('button', { name: 'Allowed addresses and rate limit' }).click();
    await page.getByLabel('Allowed addresses', { exact: true }).fill('not an address');
    await page.getByRole('button', { name: 'Create token' }).click();
    await page.getByRole('alert').getByText('Please check what you entered').waitFor();
    expect(await page.getByLabel('Allowed addresses', { exact: true }).getAttribute('aria-invalid')).toBe('true');
  });
});

it('rotates with each overlap that is offered', async () => {
  const { page } = visitor;
  const options: [label: string, seconds: number][] = [
    ['no longer: it ends now', 0],
    ['15 minutes', 900],
    ['1 hour', HOUR_S],
    ['6 hours', 6 * HOUR_S],
    ['24 hours', DAY_S],
  ];
  for (const [label, seconds] of options) {
    const old = await admin.issue({ name: unique('rotated') });
    await visitor.go(`/api-tokens/${old.id}`);
    await page.getByRole('heading', { level: 1, name: old.name }).waitFor();
    await page.getByRole('button', { name: 'Rotate' }).click();
    await visitor.choose('The old secret keeps working for', label);
    const before = Date.now();
    await page.getByRole('dialog').getByRole('button', { name: 'Rotate' }).click();
    await page.getByTestId('secret').waitFor();
    const after = await admin.token(old.id);
    if (seconds === 0) expect(after.status).toBe('revoked');
    else expect(Math.abs(Date.parse(after.expiresAt ?? '') - before - seconds * 1_000)).toBeLessThan(15_000);
    await leavePanel();
    await page.getByText('Rotated from').waitFor();
  }
});

it('lists tokens to review: used from a new address, ending soon, without end, disabled; each with its action', async () => {
  const { page } = visitor;
  const tag = unique('hygiene');
  const issue = (name: string, more: Record<string, unknown> = {}) => admin.issue({ name: `${tag} ${name}`, ...more });
  const soon = await issue('soon', { expiresInSeconds: 5 * DAY_S });
  const endless = await issue('endless');
  const off = await issue('off', { expiresInSeconds: 60 * DAY_S });
  await admin.call('PATCH', `/v1/tokens/${off.id}`, { json: { disabled: true } });
  const moved = await issue('moved', { expiresInSeconds: 60 * DAY_S });
  const useFrom = (localAddress: string) =>
    new Promise<void>((resolve, reject) => {
      const headers = { authorization: `Bearer ${moved.secret}` };
      const call = request(`${url}/demo/whoami`, { headers, localAddress }, (response) =>
        response.resume().on('end', resolve),
      );
      call.on('error', reject).end();
    });
  await useFrom('127.0.0.1');
  await useFrom('127.0.0.9');
  const callers = async () =>
    (await admin.call<{ callers: unknown[] }>('GET', `/v1/tokens/${moved.id}/usage`)).body.callers;
  await waitFor(async () => (await callers()).length === 2 && (await admin.token(moved.id)).lastUsedAt !== null, {
    timeoutMs: 30_000,
    intervalMs: 200,
    what: 'both addresses being known',
  });

  await visitor.go('/hygiene');
  const row = (title: string, { name }: Token) =>
    page
      .locator('section', { has: page.getByRole('heading', { name: title, exact: true }) })
      .getByRole('listitem')
      .filter({ hasText: name });
  await row('Used from a new address', moved)
    .getByText(/127\.0\.0\.[19]/)
    .waitFor();
  await row('Never expire', endless).waitFor();
  await visitor.picture('hygiene-full');
  for (const [title, token] of [
    ['Used from a new address', moved],
    ['Disabled', off],
  ] as const) {
    await row(title, token).getByRole('button', { name: 'Revoke' }).click();
    const dialog = page.getByRole('dialog', { name: `Revoke “${token.name}”?` });
    await dialog.getByRole('button', { name: 'Revoke now' }).click();
    await dialog.getByText(/Refused everywhere/).waitFor();
    await dialog.getByRole('button', { name: 'Done' }).click();
    await row(title, token).waitFor({ state: 'detached' });
  }
  await row('Expire within 30 days', soon).getByRole('button', { name: 'Rotate' }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Rotate' }).click();
  await leavePanel();
  await page.getByText('Rotated from').waitFor();
  const states = await Promise.all([moved, off, soon].map(async ({ id }) => (await admin.token(id)).status));
  expect(states).toEqual(['revoked', 'revoked', 'revoked']);
});

it('ticks on the MCP page when the newest token makes its first call', async () => {
  const { page } = visitor;
  const token = await admin.issue({ name: unique('assistant'), scopes: ['tokens:read'] });
  await visitor.go('/mcp');
  await page.getByText(`Waiting for the first call of “${token.name}”`).waitFor();
  const called = await ask(`${url}/mcp`, 'POST', {
    token: token.secret,
    headers: { accept: 'application/json, text/event-stream' },
    json: { jsonrpc: '2.0', id: 1, method: 'tools/list' },
  });
  expect(called.status).toBe(200);
  await page.getByText(`Connected: “${token.name}” was last used`).waitFor({ timeout: 30_000 });
});

it('narrows the audit log by what, who and when, and exports what is shown', async () => {
  const { page } = visitor;
  const token = await admin.issue({ name: unique('audited') });
  await admin.revoke(token.id);
  await visitor.go('/audit');
  await page.getByText(/^Intact: \d+ events sealed/).waitFor();
  await visitor.choose('What', 'Token revoked');
  await visitor.choose('Who', admin.user.name);
  const rows = page.getByRole('row').filter({ has: page.getByRole('cell') });
  await waitFor(
    async () => {
      const shown = await rows.allTextContents();
      return (
        shown.length > 0 && shown.every((text) => text.includes('token.revoked')) && shown[0]?.includes(token.name)
      );
    },
    { what: 'only revocations, the newest first' },
  );
  const href = await page.getByRole('link', { name: 'Export NDJSON' }).getAttribute('href');
  const exported = await admin.call<string>('GET', href ?? '');
  const lines = String(exported.body)
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Partial<AuditEvent>);
  const events = lines.filter(({ action }) => action !== undefined);
  expect(new Set(events.map(({ action }) => action))).toEqual(new Set(['token.revoked']));
  expect(events.some(({ tokenId }) => tokenId === token.id)).toBe(true);
  const download = page.waitForEvent('download');
  await page.getByRole('link', { name: 'Export CSV' }).click();
  expect((await download).suggestedFilename()).toMatch(/\.csv$/);
  await page.getByLabel('Until', { exact: true }).fill('2020-01-01');
  await page.getByText('No events match.').waitFor();
});
