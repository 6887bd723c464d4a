/// <reference lib="dom" />

import { waitFor } from '@latchkey/testing';
import type { Browser } from 'playwright-core';
import { launchBrowser, Visitor } from '../src/browser.js';
import { ask, noteSecret, Person } from '../src/caller.js';
import { placeOfRun, readyOf } from '../src/stack.js';

/* Debian's Chromium against the real stack: what people do with the console, flow by flow. */

const place = placeOfRun();
const { url } = readyOf(place);
let browser: Browser;
let admin: Person;
let visitor: Visitor;
/** Needs demo:read. */
let documents: string;

beforeAll(async () => {
  browser = await launchBrowser();
  admin = await Person.admin(place);
  documents = `${url}/demo/projects/${(await admin.project('Console')).id}/documents`;
});
afterAll(async () => {
  await browser.close();
});
beforeEach(async () => {
  visitor = await Visitor.arrive(browser, place, { as: admin });
});
afterEach(async () => {
  const { faults } = visitor;
  await visitor.leave();
  expect(faults).toEqual([]);
});

const unique = (name: string) => `${name} ${Math.random().toString(36).slice(2, 8)}`;

/** Creates a token by the form, as far as the panel that shows it once. */
async function createToken(name: string): Promise<string> {
  const { page } = visitor;
  await visitor.go(`/api-tokens/new?name=${encodeURIComponent(name)}&scopes=demo:read`);
  await page.getByRole('button', { name: 'Create token' }).click();
  await page.getByRole('heading', { name: 'Copy your token now' }).waitFor();
  await page.getByRole('button', { name: 'Reveal' }).click();
  const secret = (await page.getByTestId('secret').textContent()) ?? '';
  expect(secret).toMatch(/^lk_(pat|prj)_[0-9A-Za-z]{36}$/);
  noteSecret(place, secret);
  return secret;
}

async function leavePanel(): Promise<void> {
  const { page } = visitor;
  await page.getByLabel('I have stored it in a safe place').check();
  await page.getByRole('button', { name: 'Done' }).click();
}

describe('sign-in', () => {
  it('rejects a wrong password with a message, and accepts the right one', async () => {
    const stranger = await Visitor.arrive(browser, place);
    const { adminEmail } = readyOf(place);
    await stranger.page.goto(`${url}/`);
    await stranger.page.getByLabel('E-mail address').fill(adminEmail);
    await stranger.page.getByRole('textbox', { name: 'Password' }).fill('not the password');
    await stranger.page.getByRole('button', { name: 'Sign in' }).click();
    await stranger.page.getByRole('alert').getByText('Sign-in failed').waitFor();
    await stranger.leave();
  });

  it('signs out from the menu under the avatar', async () => {
    await visitor.leave();
    visitor = await Visitor.arrive(browser, place);
    await visitor.signIn(place);
    const { page } = visitor;
    await page.getByRole('button', { name: 'Account menu' }).click();
    await page.getByRole('menuitem', { name: 'Sign out' }).click();
    await page.getByRole('heading', { name: 'Sign in' }).waitFor();
  });
});

describe('a token shown once', () => {
  it('is masked until revealed, works when copied, and is gone from the page, storage and history after leaving', async () => {
    const { page } = visitor;
    const name = unique('shown once');
    await visitor.go(`/api-tokens/new?name=${encodeURIComponent(name)}&scopes=demo:read`);
    await page.getByRole('button', { name: 'Create token' }).click();
    const shown = page.getByTestId('secret');
    expect(await shown.textContent()).toMatch(/^lk_pat_.{4}•+$/);
    await page.getByRole('button', { name: 'Copy', exact: true }).first().click();
    const secret = await page.evaluate(() => navigator.clipboard.readText());
    noteSecret(place, secret);
    expect((await ask(documents, 'GET', { token: secret })).status).toBe(200);
    await visitor.picture('shown-once');

    await leavePanel();
    await page.getByRole('heading', { level: 1, name }).waitFor();
    const left = await page.evaluate(() =>
      [
        document.documentElement.outerHTML,
        JSON.stringify(localStorage),
        JSON.stringify(sessionStorage),
        location.href,
        JSON.stringify(history.state),
      ].join('\n'),
    );
    expect(left).not.toContain(secret.slice(11));
    await page.goBack();
    expect(await page.content()).not.toContain(secret.slice(11));
    await page.reload();
    expect(await page.content()).not.toContain(secret.slice(11));
  });

  it('asks before it is left behind', async () => {
    const { page } = visitor;
    await createToken(unique('guarded'));
    let asked = '';
    page.once('dialog', (dialog) => {
      asked = dialog.message();
      void dialog.dismiss();
    });
    await page.getByRole('link', { name: 'Projects' }).click();
    await page.getByRole('heading', { name: 'Copy your token now' }).waitFor();
    expect(asked).toContain('cannot be shown again');
  });
});

describe('the tokens page', () => {
  it('finds a token by name and by its start, and filters by status', async () => {
    const { page } = visitor;
    const name = unique('findable');
    const secret = await createToken(name);
    await leavePanel();
    await visitor.go('/api-tokens');
    for (const words of [name, secret.slice(0, 11)]) {
      await page.getByLabel('Search by name or start').fill(words);
      await page.getByRole('link', { name, exact: true }).waitFor();
      await waitFor(async () => (await page.getByRole('row').count()) === 2, { what: 'only the token looked for' });
    }
    await page.getByRole('combobox', { name: 'Status' }).click();
    await page.getByRole('option', { name: 'Revoked' }).click();
    await page.getByText('No token matches these filters.').waitFor();
  });

  it('revokes after a confirmation that names the token, and shows which gateway refused it after how long', async () => {
    const { page } = visitor;
    const name = unique('to revoke');
    const secret = await createToken(name);
    expect((await ask(documents, 'GET', { token: secret })).status).toBe(200);
    await leavePanel();
    await visitor.go('/api-tokens');
    await page.getByLabel('Search by name or start').fill(name);
    await page.getByRole('button', { name: `Actions for ${name}` }).click();
    await page.getByRole('menuitem', { name: 'Revoke' }).click();
    const dialog = page.getByRole('dialog', { name: `Revoke “${name}”?` });
    await visitor.picture('revoke-dialog');
    await dialog.getByRole('button', { name: 'Revoke now' }).click();
    await dialog.getByText(/Refused everywhere after/).waitFor();
    await visitor.picture('revoke-receipt');
    expect((await ask(documents, 'GET', { token: secret })).status).toBe(401);
    await dialog.getByRole('button', { name: 'Done' }).click();
    await page
      .getByRole('row', { name })
      .getByText(/^Revoked/)
      .first()
      .waitFor();
  });

  it('revokes several at once', async () => {
    const { page } = visitor;
    const name = unique('bulk');
    const tokens = [await admin.issue({ name: `${name} a` }), await admin.issue({ name: `${name} b` })];
    await visitor.go('/api-tokens');
    await page.getByLabel('Search by name or start').fill(name);
    for (const { name: each } of tokens) await page.getByLabel(`Select ${each}`).check();
    await page.getByRole('button', { name: 'Revoke selected' }).click();
    await page.getByRole('button', { name: 'Revoke now' }).click();
    await page.getByRole('button', { name: 'Done' }).click();
    for (const { id } of tokens) expect((await admin.token(id)).status).toBe('revoked');
  });

  it('shows what was changed in a second tab, without being touched', async () => {
    const { page } = visitor;
    const token = await admin.issue({ name: unique('two tabs') });
    await visitor.go(`/api-tokens?q=${encodeURIComponent(token.name)}`);
    const row = page.getByRole('row', { name: token.name });
    await row.getByText('Active').waitFor();
    const second = await visitor.context.newPage();
    await second.goto(`${url}/#/api-tokens/${token.id}`);
    await second.getByRole('button', { name: 'Disable' }).click();
    await second.getByRole('button', { name: 'Enable' }).waitFor();
    // Sooner than the list would be read again by itself, every ten seconds.
    await row.getByText('Disabled').waitFor({ timeout: 5_000 });
  });
});

describe('a token', () => {
  it('is rotated with an overlap: the successor is shown once and both work', async () => {
    const { page } = visitor;
    const old = await admin.issue({ name: unique('rotated'), scopes: ['demo:read'] });
    await visitor.go(`/api-tokens/${old.id}`);
    await page.getByRole('button', { name: 'Rotate' }).click();
    await page.getByRole('combobox', { name: 'The old secret keeps working for' }).click();
    await page.getByRole('option', { name: '1 hour' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Rotate' }).click();
    await page.getByRole('button', { name: 'Reveal' }).click();
    const secret = (await page.getByTestId('secret').textContent()) ?? '';
    noteSecret(place, secret);
    for (const token of [old.secret, secret]) {
      expect((await ask(documents, 'GET', { token })).status).toBe(200);
    }
    await leavePanel();
    await page.getByText('Rotated from').waitFor();
  });

  it('is edited: scopes taken away are refused everywhere once the receipt is shown', async () => {
    const { page } = visitor;
    const token = await admin.issue({ name: unique('narrowed'), scopes: ['demo:read', 'demo:write'] });
    await visitor.go(`/api-tokens/${token.id}`);
    await page.getByRole('button', { name: 'Edit' }).click();
    await page.getByRole('dialog').getByLabel('demo:read').uncheck();
    await page.getByRole('button', { name: 'Save' }).click();
    await page
      .getByRole('dialog')
      .getByText(/In force everywhere/)
      .waitFor();
    expect((await ask(documents, 'GET', { token: token.secret })).status).toBe(403);
  });

  it('is disabled and enabled again', async () => {
    const { page } = visitor;
    const token = await admin.issue({ name: unique('switched'), scopes: ['demo:read'] });
    await visitor.go(`/api-tokens/${token.id}`);
    await page.getByRole('button', { name: 'Disable' }).click();
    await page.getByRole('button', { name: 'Enable' }).waitFor();
    expect((await ask(documents, 'GET', { token: token.secret })).status).toBe(401);
    await page.getByRole('button', { name: 'Enable' }).click();
    await page.getByRole('button', { name: 'Disable' }).waitFor();
    expect((await ask(documents, 'GET', { token: token.secret })).status).toBe(200);
  });
});

describe('help', () => {
  it('shows the exact reason of a denial by its requestId', async () => {
    const { page } = visitor;
    const token = await admin.issue({ name: unique('refused'), scopes: [] });
    const refused = await ask<{ requestId: string }>(documents, 'GET', { token: token.secret });
    expect(refused.status).toBe(403);
    await visitor.go(`/refused?requestId=${refused.body.requestId}`);
    const reason = page.getByText('insufficient_scope');
    await waitFor(
      async () => {
        await page.getByRole('button', { name: 'Look up' }).click();
        return reason.isVisible();
      },
      { timeoutMs: 15_000, intervalMs: 500, what: 'the denial being kept' },
    );
    await visitor.picture('refused');
  });

  it('revokes a leaked token for anyone, signed in or not', async () => {
    const token = await admin.issue({ name: unique('leaked'), scopes: ['demo:read'] });
    const stranger = await Visitor.arrive(browser, place);
    await stranger.go('/leaked');
    await stranger.page.getByLabel('Tokens, one on each line').fill(`found this: \n${token.secret}\n`);
    await stranger.page.getByRole('button', { name: 'Revoke now' }).click();
    await stranger.page.getByText(/Any real token among them is revoked/).waitFor();
    await stranger.leave();
    await waitFor(async () => (await ask(documents, 'GET', { token: token.secret })).status === 401, {
      timeoutMs: 15_000,
      what: 'the reported token being refused',
    });
  });

  it('names the MCP endpoint, the transport and the header, and no configuration contains a secret', async () => {
    const { page } = visitor;
    await visitor.go('/mcp');
    await page.getByText(`${url}/mcp`).first().waitFor();
    await page.getByText('Streamable HTTP (JSON mode)').waitFor();
    for (const assistant of ['Claude Code', 'Claude Desktop', 'Cursor', 'VS Code', 'Codex']) {
      await page.getByRole('tab', { name: assistant }).click();
      expect(await page.getByRole('tabpanel').textContent()).not.toMatch(/lk_(pat|prj)_[0-9A-Za-z]/);
    }
  });
});

describe('administration', () => {
  it('makes a project, adds a member, changes the role, and closes it with a receipt', async () => {
    const { page } = visitor;
    const name = unique('Project');
    const person = await admin.call<{ id: string; email: string }>('POST', '/v1/users', {
      json: { email: `${unique('p').replaceAll(' ', '-')}@example.org`, name: 'Member', role: 'member' },
    });
    await visitor.go('/projects');
    await page.getByRole('button', { name: 'New project' }).click();
    await page.getByRole('dialog').getByLabel('Name').fill(name);
    await page.getByRole('dialog').getByRole('button', { name: 'New project' }).click();
    await page.getByRole('heading', { level: 1, name }).waitFor();
    await page.getByLabel('Person’s id or e-mail address').fill(person.body.email);
    await page.getByRole('button', { name: 'Add a member' }).click();
    await page.getByText(person.body.email).waitFor();
    await visitor.choose('Role: Member', 'Editor');
    await page.getByText(/In force everywhere/).waitFor();
    await page.getByRole('button', { name: 'Close project' }).click();
    const dialog = page.getByRole('dialog', { name: `Close “${name}”?` });
    await dialog.getByRole('button', { name: 'Close project' }).click();
    await dialog.getByText(/Refused everywhere/).waitFor();
    await dialog.getByRole('button', { name: 'Done' }).click();
    await page.getByText('This project is closed.').waitFor();
  });

  it('shows the audit log and the state of its hash chain', async () => {
    const { page } = visitor;
    await visitor.go('/audit');
    await page.getByText('Hash chain', { exact: true }).waitFor();
    await page.getByRole('cell', { name: 'session.started' }).first().waitFor();
  });
});
