/// <reference lib="dom" />
import axe from 'axe-core';
import type { Browser } from 'playwright-core';
import { launchBrowser, Visitor } from '../src/browser.js';
import { Person } from '../src/caller.js';
import { placeOfRun } from '../src/stack.js';

/* Every page, light and dark, wide and narrow: no accessibility barrier, and nothing that the page's policy refuses. */

const place = placeOfRun();
let browser: Browser;
let pages: [name: string, hash: string, heading: string | RegExp][];

beforeAll(async () => {
  browser = await launchBrowser();
  const admin = await Person.admin(place);
  const project = await admin.project('Pages');
  const token = await admin.issue({
    name: 'Nightly export',
    kind: 'prj',
    projectId: project.id,
    scopes: ['demo:read'],
  });
  pages = [
    ['tokens', '/api-tokens', 'API Tokens'],
    ['token', `/api-tokens/${token.id}`, 'Nightly export'],
    ['create', '/api-tokens/new?name=GitHub%20Actions&scopes=demo:read', 'Create an API token'],
    ['projects', '/projects', 'Projects'],
    ['project', `/projects/${project.id}`, 'Pages'],
    ['project-tokens', `/projects/${project.id}/api-tokens`, /API tokens of/],
    ['hygiene', '/hygiene', 'Hygiene'],
    ['refused', '/refused', 'Why was I refused?'],
    ['leaked', '/leaked', 'Report a leaked token'],
    ['mcp', '/mcp', 'MCP connection'],
    ['people', '/people', 'People'],
    ['policy', '/policy', 'Policy'],
    ['account', '/account', 'My account'],
    ['gateways', '/gateways', 'Gateways'],
    ['system', '/system', 'System'],
    ['audit', '/audit', 'Audit log'],
  ];
});
afterAll(async () => {
  await browser.close();
});

const layouts = (['light', 'dark'] as const).flatMap((scheme) => [1440, 390].map((width) => ({ scheme, width })));

it.each(layouts)(
  'has no serious barrier on any page, $scheme, $width px wide',
  async ({ scheme, width }) => {
    const visitor = await Visitor.arrive(browser, place, { scheme, width });
    const { page } = visitor;
    await visitor.page.goto(`${visitor.url}/`);
    await page.getByRole('heading', { name: 'Sign in' }).waitFor();
    await visitor.idle();
    const found: string[] = [];
    const examine = async (name: string) => {
      await visitor.picture(`${name}-${scheme}-${width}`);
      if (!(await page.evaluate(() => 'axe' in globalThis))) await page.evaluate(axe.source);
      const results = await page.evaluate(() =>
        (globalThis as unknown as { axe: typeof axe }).axe.run({ resultTypes: ['violations'] }),
      );
      for (const { id, impact, nodes } of results.violations) {
        if (impact !== 'serious' && impact !== 'critical') continue;
        found.push(`${name}: ${id}: ${nodes.map((node) => node.html.slice(0, 160)).join(' | ')}`);
      }
      const overflow = await page.evaluate(
        () => document.documentElement.scrollWidth - document.documentElement.clientWidth,
      );
      if (overflow > 0) found.push(`${name}: ${overflow} px wider than the screen`);
    };
    await examine('sign-in');
    await visitor.go('/reset');
    await page.getByRole('heading', { name: 'Set a new password' }).waitFor();
    await examine('reset');
    await visitor.go('/leaked');
    await page.getByRole('heading', { name: 'Report a leaked token' }).waitFor();
    await examine('leaked-from-outside');
    await visitor.signIn(place);
    for (const [name, hash, heading] of pages) {
      await visitor.go(hash);
      await page.getByRole('heading', { level: 1, name: heading }).waitFor();
      await visitor.idle();
      await examine(name);
    }
    expect(found).toEqual([]);
    expect(visitor.faults).toEqual([]);
    await visitor.leave();
  },
  180_000,
);

it('cuts nothing off that can be pressed, at any width from a telephone to a large screen', async () => {
  const visitor = await Visitor.arrive(browser, place, { as: await Person.admin(place) });
  const { page } = visitor;
  const found: string[] = [];
  for (const [name, hash, heading] of pages) {
    await page.setViewportSize({ width: 1440, height: 900 });
    await visitor.go(hash);
    await page.getByRole('heading', { level: 1, name: heading }).waitFor();
    await visitor.idle();
    for (const width of [1401, 1366, 1280, 1100, 1024, 941, 800, 390]) {
      await page.setViewportSize({ width, height: 900 });
      const hidden = await page.evaluate(async () => {
        for (let i = 0; i < 3; i++) await new Promise(requestAnimationFrame);
        const all = [...document.querySelectorAll<HTMLElement>('main :is(button, a[href], input, select, textarea)')];
        return all.flatMap((one) => {
          const { left, right, top, bottom } = one.getBoundingClientRect();
          if (!one.checkVisibility({ visibilityProperty: true, opacityProperty: true }) || right - left < 4) return [];
          if (top < 60 || bottom > innerHeight) return [];
          // A corner of what is whole belongs to it, or to what it stands for.
          const at = document.elementFromPoint(right - 3, (top + bottom) / 2);
          const isWhole =
            at !== null && (one.contains(at) || at.closest('label, .mantine-Input-wrapper')?.contains(one));
          return isWhole ? [] : [one.ariaLabel ?? (one.textContent || one.outerHTML).slice(0, 60)];
        });
      });
      if (hidden.length > 0) found.push(`${name}, ${width} px: ${hidden.slice(0, 3).join(' | ')}`);
    }
  }
  expect(found).toEqual([]);
  await visitor.leave();
}, 180_000);
