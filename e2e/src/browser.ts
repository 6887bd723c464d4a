import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import path from 'node:path';
import { waitFor } from '@latchkey/testing';
import { type Browser, type BrowserContext, chromium, type Page } from 'playwright-core';
import type { Person } from './caller.js';
import { type Place, readyOf } from './stack.js';

const CHROMIUM = '/usr/bin/chromium';

/** Debian's Chromium; installed when it is missing and this user can. */
function chromiumPath(): string {
  if (existsSync(CHROMIUM)) return CHROMIUM;
  if (process.getuid?.() !== 0) {
    throw new Error(`the browser suite needs ${CHROMIUM}: install it with "sudo apt-get install chromium"`);
  }
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  execFileSync('apt-get', ['update', '-q'], { env, stdio: ['ignore', 'ignore', 'inherit'] });
  execFileSync('apt-get', ['install', '-y', '-q', '--no-install-recommends', 'chromium', 'fonts-dejavu-core'], {
    env,
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  return CHROMIUM;
}

export function launchBrowser(): Promise<Browser> {
  return chromium.launch({
    executablePath: chromiumPath(),
    args: ['--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-sync'],
    // As root, which containers often are, Chromium has no sandbox of its own.
    chromiumSandbox: process.getuid?.() !== 0,
  });
}

export interface Visit {
  width?: number;
  scheme?: 'light' | 'dark';
  /** Whose session the browser has; none when left out. */
  as?: Person;
}

/** Faults as the page itself reports them: a violation of its policy has more detail there than in the browser's log. */
const REPORT_VIOLATIONS = `document.addEventListener('securitypolicyviolation', (event) =>
  console.error('Content-Security-Policy refused ' + event.violatedDirective + ' ' + event.blockedURI + ' ' + event.sample));`;

/** A person at the console: one context, one page, everything that the page's policy refused, every error it logged. */
export class Visitor {
  #open = 0;

  private constructor(
    readonly context: BrowserContext,
    readonly page: Page,
    readonly url: string,
    /** Violations of the Content-Security-Policy and errors of the console's own code. */
    readonly faults: string[],
  ) {
    page.on('request', () => this.#open++);
    for (const end of ['requestfinished', 'requestfailed'] as const)
      page.on(end as 'requestfinished', () => this.#open--);
  }

  static async arrive(
    browser: Browser,
    place: Place,
    { width = 1440, scheme = 'light', as }: Visit = {},
  ): Promise<Visitor> {
    const { url } = readyOf(place);
    const context = await browser.newContext({
      viewport: { width, height: 900 },
      colorScheme: scheme,
      permissions: ['clipboard-read', 'clipboard-write'],
    });
    await context.addInitScript(REPORT_VIOLATIONS);
    if (as) {
      const [name = '', value = ''] = as.cookie.split('=', 2);
      await context.addCookies([{ name, value, url, httpOnly: true, sameSite: 'Lax' }]);
    }
    const page = await context.newPage();
    page.setDefaultTimeout(15_000);
    const faults: string[] = [];
    page.on('pageerror', (error) => faults.push(error.message));
    page.on('console', (message) => {
      if (/Content.Security.Policy|Refused to/i.test(message.text())) faults.push(message.text());
    });
    return new Visitor(context, page, url, faults);
  }

  /** Signs in by the form, as the administrator by default. */
  async signIn(place: Place, email?: string, password?: string): Promise<void> {
    const { adminEmail, adminPassword } = readyOf(place);
    await this.page.goto(`${this.url}/`);
    await this.fillSignIn(email ?? adminEmail, password ?? adminPassword);
    await this.page.getByRole('heading', { level: 1, name: 'API Tokens' }).waitFor();
  }

  async fillSignIn(email: string, password: string): Promise<void> {
    await this.page.getByLabel('E-mail address').fill(email);
    await this.page.getByRole('textbox', { name: 'Password' }).fill(password);
    await this.page.getByRole('button', { name: 'Sign in' }).click();
  }

  /** Chooses in one of the console's own select boxes. */
  async choose(label: string, option: string): Promise<void> {
    await this.page.getByRole('combobox', { name: label, exact: true }).click();
    await this.page.getByRole('option', { name: option, exact: true }).click();
  }

  /** Waits until the page has no requests in flight and shows their responses. */
  async idle(): Promise<void> {
    let quiet = 0;
    await waitFor(
      () => {
        quiet = this.#open > 0 ? 0 : quiet + 1;
        return quiet > 3;
      },
      { timeoutMs: 20_000, intervalMs: 40, what: 'the page to come to rest' },
    );
  }

  async go(hash: string): Promise<void> {
    await this.page.goto(`${this.url}/#${hash}`);
  }

  /** Saves a picture in the folder that LATCHKEY_SCREENSHOTS names, if it names one. */
  async picture(name: string): Promise<void> {
    const folder = process.env['LATCHKEY_SCREENSHOTS'];
    if (!folder) return;
    mkdirSync(folder, { recursive: true });
    await this.page.screenshot({ path: path.join(folder, `${name}.png`), fullPage: true });
  }

  async leave(): Promise<void> {
    await this.context.close();
  }
}
