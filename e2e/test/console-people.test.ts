/// <reference lib="dom" />

import { createHmac } from 'node:crypto';
import type { Policy, User } from '@latchkey/contracts';
import type { Browser, Page } from 'playwright-core';
import { launchBrowser, Visitor } from '../src/browser.js';
import { ask, Person } from '../src/caller.js';
import { decodeSvgSquares } from '../src/qr.js';
import { placeOfRun, readyOf } from '../src/stack.js';

/* People and what is theirs, in Debian's Chromium against the real stack. */

const place = placeOfRun();
const { url } = readyOf(place);
const PASSWORD = 'a long first password';
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

async function visit(as?: Person): Promise<Visitor> {
  const visitor = await Visitor.arrive(browser, place, as ? { as } : {});
  visitors.push(visitor);
  return visitor;
}

async function member(name = 'Ada'): Promise<User> {
  const email = `${name.toLowerCase()}-${Math.random().toString(36).slice(2, 10)}@example.org`;
  const { body } = await admin.call<User>('POST', '/v1/users', {
    json: { email, name, role: 'member', password: PASSWORD },
  });
  return body;
}

const section = (page: Page, name: string) =>
  page.locator('section', { has: page.getByRole('heading', { name, exact: true }) });
const whoIs = (person: Person) => person.call('GET', '/v1/session').then(({ status }) => status);

/** What an authenticator app shows now (RFC 6238). */
function oneTimeCode(uri: string): string {
  const secret = new URL(uri).searchParams.get('secret') ?? '';
  const bits = [...secret]
    .map((c) => 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'.indexOf(c).toString(2).padStart(5, '0'))
    .join('');
  const key = Buffer.from((bits.match(/.{8}/g) ?? []).map((byte) => Number.parseInt(byte, 2)));
  const counter = Buffer.alloc(8);
  counter.writeBigUInt64BE(BigInt(Math.floor(Date.now() / 30_000)));
  const mac = createHmac('sha1', key).update(counter).digest();
  const at = (mac.at(-1) ?? 0) & 15;
  return String((mac.readUInt32BE(at) & 0x7fff_ffff) % 1_000_000).padStart(6, '0');
}

describe('my account', () => {
  it('changes the password, ends other sign-ins one by one and all at once', async () => {
    const user = await member();
    const [here, elsewhere, third] = [
      await Person.signIn(place, user.email, PASSWORD),
      await Person.signIn(place, user.email, PASSWORD),
      await Person.signIn(place, user.email, PASSWORD),
    ];
    const visitor = await visit(here);
    const { page } = visitor;
    await visitor.go('/account');
    const sessions = section(page, 'Where you are signed in');
    await sessions.getByText('this one').waitFor();
    expect(await sessions.getByRole('button', { name: 'End' }).count()).toBe(2);
    await sessions.getByRole('button', { name: 'End' }).first().click();
    await sessions.getByRole('button', { name: 'End' }).nth(1).waitFor({ state: 'detached' });
    expect([await whoIs(elsewhere), await whoIs(third)].sort()).toEqual([200, 401]);

    const password = section(page, 'Password');
    await password.getByRole('textbox', { name: 'Current password' }).fill('not the password');
    await password.getByRole('textbox', { name: 'New password' }).fill('another long password');
    await password.getByRole('button', { name: 'Change password' }).click();
    await password.getByRole('alert').waitFor();
    await password.getByRole('textbox', { name: 'Current password' }).fill(PASSWORD);
    await password.getByRole('textbox', { name: 'New password' }).fill('another long password');
    await password.getByRole('button', { name: 'Change password' }).click();
    await password.getByText('The password is changed').waitFor();
    expect([await whoIs(elsewhere), await whoIs(third), await whoIs(here)]).toEqual([401, 401, 200]);

    await sessions.getByRole('button', { name: 'Sign out everywhere' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Sign out everywhere' }).click();
    await page.getByRole('heading', { name: 'Sign in' }).waitFor();
    expect(await whoIs(here)).toBe(401);
    await visitor.fillSignIn(user.email, 'another long password');
    await page.getByRole('heading', { level: 1, name: 'My account' }).waitFor();
  });

  it('turns a second factor on by its QR code, takes recovery codes once each, and turns it off', async () => {
    const user = await member();
    const visitor = await visit(await Person.signIn(place, user.email, PASSWORD));
    const { page } = visitor;
    await visitor.go('/account');
    const factor = section(page, 'Second factor');
    await factor.getByRole('textbox', { name: 'Current password' }).fill(PASSWORD);
    await factor.getByRole('button', { name: 'Set up' }).click();
    const square = page.getByRole('img', { name: 'QR code for your authenticator app' });
    await visitor.picture('second-factor');
    const uri = decodeSvgSquares(await square.evaluate((svg) => svg.outerHTML));
    expect(uri).toMatch(/^otpauth:\/\/totp\//);
    expect(await factor.textContent()).toContain(new URL(uri).searchParams.get('secret'));
    await factor.getByLabel('One-time code').fill(oneTimeCode(uri));
    await factor.getByRole('button', { name: 'Turn on' }).click();
    const shown = page.getByTestId('recovery-codes').getByRole('listitem');
    await shown.first().waitFor();
    await visitor.picture('recovery-codes');
    const [first = '', second = ''] = await shown.allTextContents();
    await page.getByRole('button', { name: 'I have stored them' }).click();
    await factor.getByText('10 recovery codes left.').waitFor();
    expect(await page.content()).not.toContain(first);

    const again = await visit();
    await again.go('/');
    await again.fillSignIn(user.email, PASSWORD);
    await again.page.getByText('Now the code that your authenticator app shows.').waitFor();
    await again.page.getByLabel('One-time code').fill(first);
    await again.page.getByRole('button', { name: 'Sign in' }).click();
    await again.page.getByRole('heading', { level: 1, name: 'API Tokens' }).waitFor();

    await page.reload();
    await factor.getByText('9 recovery codes left.').waitFor();
    const turnOff = async (code: string) => {
      await factor.getByRole('textbox', { name: 'Current password' }).fill(PASSWORD);
      await factor.getByLabel('One-time code').fill(code);
      await factor.getByRole('button', { name: 'Turn off' }).click();
    };
    await turnOff(first);
    await factor.getByRole('alert').waitFor();
    await turnOff(second);
    await factor.getByRole('button', { name: 'Set up' }).waitFor();
  });

  it('sets a password with a code only together with the second factor of a person who has one', async () => {
    const user = await member();
    const person = await Person.signIn(place, user.email, PASSWORD);
    const { body } = await person.call<{ uri: string }>('POST', '/v1/session/totp', { json: { password: PASSWORD } });
    const confirmed = await person.call<{ recoveryCodes: string[] }>('POST', '/v1/session/totp/confirm', {
      json: { code: oneTimeCode(body.uri) },
    });
    const reset = await admin.call<{ code: string }>('POST', `/v1/users/${user.id}/reset-password`);
    const visitor = await visit();
    const { page } = visitor;
    await visitor.go(`/reset?email=${encodeURIComponent(user.email)}&code=${encodeURIComponent(reset.body.code)}`);
    await page.getByRole('textbox', { name: 'New password' }).fill('another long password');
    await page.getByRole('button', { name: 'Set password' }).click();
    await page.getByText('Your code is right.').waitFor();
    await page.getByLabel('One-time code').fill(confirmed.body.recoveryCodes[0] ?? '');
    await page.getByRole('button', { name: 'Set password' }).click();
    await page.getByText('The password is set.').waitFor();
    const signIn = await ask(`${url}/v1/session`, 'POST', {
      json: { email: user.email, password: 'another long password' },
    });
    expect([signIn.status, signIn.body]).toMatchObject([401, { code: 'second_factor_required' }]);
  });

  it('stores the notices that a person chose, and how they are sent', async () => {
    const user = await member();
    const visitor = await visit(await Person.signIn(place, user.email, PASSWORD));
    await visitor.go('/account');
    const box = visitor.page.getByRole('checkbox', { name: 'By e-mail: A token was used from a new address' });
    expect(await box.isChecked()).toBe(true);
    await box.uncheck();
    await visitor.idle();
    await visitor.page.reload();
    await box.waitFor();
    expect(await box.isChecked()).toBe(false);
  });
});

describe('signing in', () => {
  it('tells in a sentence why a sign-in at another service failed', async () => {
    const visitor = await visit();
    await visitor.go('/sign-in?failed=unknown&requestId=01890000-0000-7000-8000-000000000000');
    await visitor.page.getByRole('alert').getByText('Nobody here belongs to that sign-in.').waitFor();
    await visitor.page.getByText('01890000-0000-7000-8000-000000000000').waitFor();
    const { adminEmail, adminPassword } = readyOf(place);
    await visitor.fillSignIn(adminEmail, adminPassword);
    await visitor.page.getByRole('heading', { level: 1, name: 'API Tokens' }).waitFor();
  });
});

describe('people', () => {
  it('are added without a password, and choose one with the code that was handed over', async () => {
    const visitor = await visit(admin);
    const { page } = visitor;
    const email = `new-${Math.random().toString(36).slice(2, 10)}@example.org`;
    await visitor.go('/people');
    await page.getByRole('button', { name: 'Add a person' }).click();
    const dialog = page.getByRole('dialog', { name: 'Add a person' });
    await dialog.getByLabel('E-mail address').fill(email);
    await dialog.getByLabel('Name').fill('Newcomer');
    await dialog.getByRole('button', { name: 'Add a person' }).click();
    const row = page.getByRole('listitem').filter({ hasText: email });
    await row.waitFor();
    // Where email is sent the invitation goes by email; an administrator can hand over a code all the same.
    await visitor.idle();
    if (!(await page.getByTestId('code').isVisible())) {
      await row.getByRole('button', { name: 'Actions for Newcomer' }).click();
      await page.getByRole('menuitem', { name: 'New password …' }).click();
    }
    const code = (await page.getByTestId('code').textContent()) ?? '';
    await page.getByRole('dialog').getByRole('button', { name: 'Done' }).click();

    const newcomer = await visit();
    await newcomer.go(`/reset?email=${encodeURIComponent(email)}&code=${encodeURIComponent(code)}`);
    await newcomer.page.getByRole('textbox', { name: 'New password' }).fill(PASSWORD);
    expect(newcomer.page.url()).not.toContain(encodeURIComponent(code));
    await newcomer.page.getByRole('button', { name: 'Set password' }).click();
    await newcomer.page.getByText('The password is set.').waitFor();
    await newcomer.page.getByRole('button', { name: 'Back to sign-in' }).click();
    await newcomer.fillSignIn(email, PASSWORD);
    await newcomer.page.getByRole('heading', { name: 'No tokens yet' }).waitFor();
    await newcomer.picture('tokens-empty');
  });

  it('change role, lose all their tokens at once, are disabled with their tokens, and enabled again', async () => {
    const name = `Sam ${Math.random().toString(36).slice(2, 8)}`;
    const user = await member(name.replace(' ', ''));
    await admin.call('PATCH', `/v1/users/${user.id}`, { json: { name } });
    const person = await Person.signIn(place, user.email, PASSWORD);
    const [first, second] = [await person.issue({ name: 'first' }), await person.issue({ name: 'second' })];
    const self = (secret: string) =>
      ask(`${url}/v1/tokens/self`, 'GET', { token: secret }).then(({ status }) => status);
    expect(await self(first.secret)).toBe(200);

    const visitor = await visit(admin);
    const { page } = visitor;
    await visitor.go('/people');
    await page.getByLabel('Search by name or e-mail address').fill(name);
    const act = async (item: string) => {
      await page.getByRole('button', { name: `Actions for ${name}` }).click();
      await page.getByRole('menuitem', { name: item }).click();
    };
    await act('Revoke all tokens');
    const revoking = page.getByRole('dialog', { name: `Revoke all tokens of ${name}?` });
    await revoking.getByRole('button', { name: 'Revoke all tokens' }).click();
    await revoking.getByText(/Refused everywhere/).waitFor();
    await visitor.picture('person-revoked');
    expect([await self(first.secret), await self(second.secret)]).toEqual([401, 401]);
    await revoking.getByRole('button', { name: 'Done' }).click();

    const third = await person.issue({ name: 'third' });
    await act('Disable');
    const disabling = page.getByRole('dialog', { name: `Disable ${name}?` });
    await disabling.getByRole('button', { name: 'Disable' }).click();
    await disabling.getByText(/Refused everywhere/).waitFor();
    expect([await self(third.secret), await whoIs(person)]).toEqual([401, 401]);
    await disabling.getByRole('button', { name: 'Done' }).click();
    await page.getByText('Disabled', { exact: true }).waitFor();
    await act('Enable');
    await page.getByText('Disabled', { exact: true }).waitFor({ state: 'detached' });
    expect(await self(third.secret)).toBe(200);
    await visitor.choose(`Role: ${name}`, 'Administrator');
    await visitor.idle();
    expect((await admin.call<{ items: User[] }>('GET', `/v1/users?q=${user.email}`)).body.items[0]?.role).toBe('admin');
  });
});

describe('the policy', () => {
  it('is demanded of every token from the moment it is saved', async () => {
    const before = (await admin.call<Policy>('GET', '/v1/policy')).body;
    try {
      const visitor = await visit(admin);
      const { page } = visitor;
      await visitor.go('/policy');
      await page.getByLabel('Longest lifetime in days').fill('10');
      await page.getByLabel('Every token must have an end').check();
      await page.getByRole('button', { name: 'Save' }).click();
      await page.getByText('Saved.').waitFor();
      await visitor.go('/api-tokens/new?name=too%20long');
      await page.getByRole('button', { name: 'Create token' }).click();
      await page.getByRole('alert').waitFor();
      await page.getByRole('radio', { name: '7 days' }).check();
      await page.getByRole('button', { name: 'Create token' }).click();
      await page.getByRole('heading', { name: 'Copy your token now' }).waitFor();
    } finally {
      await admin.call('PUT', '/v1/policy', { json: before });
    }
  });
});
