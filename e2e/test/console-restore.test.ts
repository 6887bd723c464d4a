/// <reference lib="dom" />

import { ERRORS, problem, type Restore, type SystemState } from '@latchkey/contracts';
import type { Browser } from 'playwright-core';
import { launchBrowser, Visitor } from '../src/browser.js';
import { Person } from '../src/caller.js';
import { placeOfRun, readyOf } from '../src/stack.js';

/* What the console shows after a restore, in Debian's Chromium; the state of the restore is put into the responses. */

const place = placeOfRun();
let browser: Browser;
let admin: Person;
const visitors: Visitor[] = [];

beforeAll(async () => {
  browser = await launchBrowser();
  admin = await Person.admin(place);
});
afterAll(() => browser.close());
afterEach(async () => {
  for (const { faults, context } of visitors.splice(0)) {
    await context.close();
    expect(faults).toEqual([]);
  }
});

const ago = (minutes: number) => new Date(Date.now() - minutes * 60_000).toISOString();
const UNSETTLED: Restore = {
  id: '019f8a6e-7a10-7c3e-9d51-2f1f0c3b8a88',
  detectedAt: ago(4),
  newestEventAt: ago(600),
  state: 'unsettled',
  reason: 'ledger_copied',
  ledgerReachesTo: ago(601),
  reapplied: 0,
  mustSetPassword: 0,
  sessionsEnded: 0,
  notReapplied: [],
  settledAt: null,
  choice: null,
};
const SETTLED: Restore = { ...UNSETTLED, state: 'settled', settledAt: ago(0), choice: 'revoke', mustSetPassword: 3 };

/** A visitor of a service whose database was restored. */
async function visit(restore: Restore, ledger: SystemState['ledger'], visit: { width?: number; scheme?: 'dark' } = {}) {
  const visitor = await Visitor.arrive(browser, place, { as: admin, ...visit });
  visitors.push(visitor);
  const shown = { restore };
  await visitor.page.route('**/v1/system', async (route) => {
    const response = await route.fetch();
    await route.fulfill({ response, json: { ...((await response.json()) as SystemState), ledger, ...shown } });
  });
  return { visitor, page: visitor.page, shown };
}
const OFF: SystemState['ledger'] = { state: 'off', reason: null };

describe('while a restore is unsettled', () => {
  it('every page says so, and leads to the decision', async () => {
    const { visitor, page } = await visit(UNSETTLED, OFF);
    for (const at of ['/api-tokens', '/projects', '/account']) {
      await visitor.go(at);
      await page.getByRole('status').getByText('The database was restored from a backup').waitFor();
    }
    await page.getByRole('link', { name: 'Decide' }).click();
    await page.getByRole('heading', { level: 2, name: 'Restore of the database' }).waitFor();
    await page.getByText('it has forgotten the same changes').waitFor();
  });

  it('a decision is asked once more, after a newer sign-in where one is wanted, and shows its receipt', async () => {
    const { visitor, page, shown } = await visit(UNSETTLED, OFF);
    const bodies: unknown[] = [];
    await page.route('**/v1/system/restore/settle', async (route) => {
      bodies.push(route.request().postDataJSON());
      if (bodies.length === 1) {
        const { status, meaning } = ERRORS.reauthentication_required;
        return route.fulfill({
          status,
          contentType: 'application/problem+json',
          body: JSON.stringify(problem('reauthentication_required', meaning, 'r-1')),
        });
      }
      shown.restore = SETTLED;
      const receipt = { confirmedAt: ago(0), elapsedMs: 12, verifiers: [] };
      await route.fulfill({ json: { effective: true, receipt, pending: [], restore: SETTLED } });
    });
    await visitor.go('/system');
    await page.getByRole('button', { name: 'Revoke all that existed …' }).click();
    const dialog = page.getByRole('dialog', { name: 'Revoke all tokens from before the restore?' });
    await dialog.getByText('This cannot be undone').waitFor();
    expect(bodies).toEqual([]);
    await visitor.picture('restore-question');
    await dialog.getByRole('button', { name: 'Revoke all that existed' }).click();
    await dialog.getByText('Show that it is still you').waitFor();
    await visitor.picture('restore-sign-in-again');
    await dialog.getByRole('textbox', { name: 'Password' }).fill(readyOf(place).adminPassword);
    await dialog.getByRole('button', { name: 'Sign in and continue' }).click();
    await dialog.getByText('Refused everywhere').waitFor();
    await visitor.picture('restore-receipt');
    expect(bodies).toEqual([{ choice: 'revoke' }, { choice: 'revoke' }]);
    await page.getByText('an administrator revoked all tokens').waitFor();
    expect(await dialog.getByText('Refused everywhere').isVisible()).toBe(true);
    await dialog.getByRole('button', { name: 'Done' }).click();
    await page.getByText('an administrator revoked all tokens').waitFor();
    await page.getByText('3 people').waitFor();
    expect(await page.getByText('The database was restored from a backup').count()).toBe(0);
  });

  it('a member is told why programs get 503, and is led to no decision', async () => {
    const email = `member-${Math.random().toString(36).slice(2, 10)}@example.org`;
    const password = 'a long first password';
    await admin.call('POST', '/v1/users', { json: { email, name: 'Member', role: 'member', password } });
    const member = await Person.signIn(place, email, password);
    const { id } = await member.issue({ name: 'From before' });
    const visitor = await Visitor.arrive(browser, place, { as: member });
    visitors.push(visitor);
    const { page } = visitor;
    await page.route('**/v1/session', async (route) => {
      const response = await route.fetch();
      await route.fulfill({ response, json: { ...(await response.json()), unsettledRestoreAt: ago(-1) } });
    });
    await visitor.go('/api-tokens');
    await page.getByText('programs get 503').waitFor();
    expect(await page.getByRole('link', { name: 'Decide' }).count()).toBe(0);
    await visitor.picture('restore-member');
    await visitor.go(`/api-tokens/${id}`);
    await page.getByText('Not accepted for now').waitFor();
  });
});

it('after a restore was settled, what could not be applied again is listed to be checked by hand', async () => {
  const subject = { type: 'token', id: '019f8a6e-7a10-7c3e-9d51-2f1f0c3b8a01' };
  const restore: Restore = {
    ...SETTLED,
    choice: 'ledger',
    reason: null,
    reapplied: 17,
    notReapplied: [{ action: 'token.revoked', subject, at: ago(300) }],
  };
  const { visitor, page } = await visit(restore, { state: 'failed', reason: 'ENOSPC: no space left on device' });
  await visitor.go('/system');
  await page.getByText('17 changes').waitFor();
  await page.getByRole('link', { name: subject.id }).waitFor();
  await page.getByText('ENOSPC').waitFor();
  await visitor.picture('restore-settled');
});

it.each([
  ['light-wide', {}],
  ['dark-wide', { scheme: 'dark' as const }],
  ['light-narrow', { width: 390 }],
  ['dark-narrow', { scheme: 'dark' as const, width: 390 }],
])('the decision fits its screen, %s', async (name, look) => {
  const { visitor, page } = await visit(UNSETTLED, OFF, look);
  await visitor.go('/system');
  await page.getByRole('button', { name: 'Accept them again …' }).waitFor();
  await visitor.idle();
  await visitor.picture(`restore-${name}`);
  const overflow = await page.evaluate(
    () => document.documentElement.scrollWidth - document.documentElement.clientWidth,
  );
  expect(overflow).toBe(0);
});
