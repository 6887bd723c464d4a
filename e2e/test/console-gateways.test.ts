/// <reference lib="dom" />

import { randomBytes } from 'node:crypto';
import type { VerifierItem } from '@latchkey/contracts';
import { bearer, tokensCaller } from '@latchkey/runtime';
import { waitFor } from '@latchkey/testing';
import type { Browser } from 'playwright-core';
import { launchBrowser, Visitor } from '../src/browser.js';
import { Person } from '../src/caller.js';
import { placeOfRun, readyOf } from '../src/stack.js';

/* The verifiers that answer checks from memory, in Debian's Chromium against the real stack. */

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

async function visit(as: Person): Promise<Visitor> {
  const visitor = await Visitor.arrive(browser, place, { as });
  visitors.push(visitor);
  return visitor;
}

const verifiers = async () => (await admin.call<{ items: VerifierItem[] }>('GET', '/v1/verifiers')).body.items;

describe('the gateways page', () => {
  it('tells whose each verifier is, ends its lease after one question, and shows by itself what becomes of it', async () => {
    const [before] = await verifiers();
    const visitor = await visit(admin);
    const { page } = visitor;
    await visitor.go('/gateways');
    const row = page.locator(`[data-verifier="${before!.id}"]`);
    await row.getByText('First party').waitFor();
    await row.getByText(before!.version).waitFor();
    await row.getByRole('button', { name: `End lease: ${before!.name}` }).click();
    const dialog = page.getByRole('dialog', { name: `End the lease of “${before!.name}”?` });
    await dialog.getByText('Revocations wait for the old lease').waitFor();
    expect((await verifiers()).find(({ id }) => id === before!.id)?.ended).toBe(false);
    await visitor.picture('gateway-ending');
    await dialog.getByRole('button', { name: 'End lease' }).click();
    await dialog.getByText('It has lapsed in').waitFor();
    await dialog.getByRole('button', { name: 'Done' }).click();
    await row.getByText('Ended').first().waitFor();
    await visitor.picture('gateway-ended');
    expect(await row.getByRole('button', { name: /End lease/ }).count()).toBe(0);
    expect(await page.evaluate(() => document.activeElement?.id)).toBe('content');
    // The gateway goes on under another lease; the old one is gone once it has lapsed.
    await row.waitFor({ state: 'detached', timeout: 30_000 });
    await waitFor(async () => (await page.getByRole('button', { name: /^End lease/ }).count()) > 0, {
      timeoutMs: 30_000,
      what: 'the gateway having another lease',
    });
    const events = await admin.call<{ items: { subject: { id: string } }[] }>('GET', '/v1/audit?action=verifier.ended');
    expect(events.body.items.map(({ subject }) => subject.id)).toContain(before!.id);
  }, 90_000);

  it('identifies a service that checks tokens itself by the token it calls with, not by the name it gives', async () => {
    const token = await admin.issue({ name: 'Checks of billing', scopes: ['tokens:verify'] });
    const rpc = tokensCaller({ address: readyOf(place).rpcAddress, authorization: bearer(token.secret) });
    const { verifierId } = await rpc.renew({
      verifierId: '',
      name: 'First party',
      cursor: null,
      claim: randomBytes(32).toString('base64url'),
      version: '9.9.9',
    });
    rpc.close();
    const visitor = await visit(admin);
    const { page } = visitor;
    await visitor.go('/gateways');
    const row = page.locator(`[data-verifier="${verifierId}"]`);
    await row.getByRole('link', { name: 'Checks of billing' }).waitFor();
    await row.getByText('None read yet').waitFor();
    expect(await row.locator('.status-active').count()).toBe(0);
    await visitor.picture('gateways-third-party');
    await row.getByRole('button', { name: 'End lease' }).click();
    const dialog = page.getByRole('dialog');
    await dialog.getByText('revoke the token that it calls with').waitFor();
    await dialog.getByRole('button', { name: 'End lease' }).click();
    await dialog.getByText('It has lapsed in').waitFor();
    await dialog.getByRole('button', { name: 'Done' }).click();
    await row.getByRole('link').click();
    await page.getByRole('heading', { level: 1, name: 'Checks of billing' }).waitFor();
  });

  it('changes nothing when the dialog is cancelled', async () => {
    const [verifier] = (await verifiers()).filter(({ ended }) => !ended);
    const visitor = await visit(admin);
    const { page } = visitor;
    await visitor.go('/gateways');
    const button = page.locator(`[data-verifier="${verifier!.id}"]`).getByRole('button');
    await button.focus();
    await page.keyboard.press('Enter');
    await page.getByRole('dialog').getByRole('button', { name: 'Cancel' }).waitFor();
    await page.keyboard.press('Escape');
    await page.getByRole('dialog').waitFor({ state: 'detached' });
    await waitFor(() => button.evaluate((element) => element === document.activeElement), {
      what: 'the focus being back where it was',
    });
    expect((await verifiers()).find(({ id }) => id === verifier!.id)?.ended).toBe(false);
  });

  it('still shows what it has read while the service is unavailable, with a notice, and recovers by itself', async () => {
    const visitor = await visit(admin);
    const { page } = visitor;
    await visitor.go('/gateways');
    await page.getByRole('table').waitFor();
    await page.route('**/v1/verifiers', (route) => route.abort());
    await page.getByRole('alert').waitFor({ timeout: 30_000 });
    await page.getByText('as read').waitFor();
    expect(await page.getByRole('table').isVisible()).toBe(true);
    await page.unroute('**/v1/verifiers');
    await page.getByRole('alert').waitFor({ state: 'detached', timeout: 30_000 });
  }, 60_000);

  it('shows that no verifier has to be waited for when none has a lease', async () => {
    const visitor = await visit(admin);
    await visitor.page.route('**/v1/verifiers', (route) => route.fulfill({ json: { items: [] } }));
    await visitor.go('/gateways');
    await visitor.page.getByRole('heading', { name: 'Nobody answers from memory' }).waitFor();
    await visitor.picture('gateways-empty');
  });

  it('is for administrators: others are neither led to it nor shown anything', async () => {
    const email = `member-${Math.random().toString(36).slice(2, 10)}@example.org`;
    const password = 'a long first password';
    await admin.call('POST', '/v1/users', { json: { email, name: 'Member', role: 'member', password } });
    const visitor = await visit(await Person.signIn(place, email, password));
    const { page } = visitor;
    await visitor.go('/gateways');
    await page.getByRole('alert').getByText('You may not do this').waitFor();
    expect(await page.getByRole('table').count()).toBe(0);
    expect(await page.getByRole('link', { name: 'Gateways' }).count()).toBe(0);
  });
});
