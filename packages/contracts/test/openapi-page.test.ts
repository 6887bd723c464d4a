import { createHash } from 'node:crypto';
import { DOCS_PAGE_POLICY, docsPage, ENDPOINTS, openApiDocument } from '../src/index.js';

const document = openApiDocument();
const page = docsPage(document);

it('the page shows every call and every schema, and each of its links has a target', () => {
  const places = new Set([...page.matchAll(/ id="([^"]+)"/g)].map((match) => match[1]));
  for (const name of Object.keys(ENDPOINTS)) expect(places).toContain(name);
  for (const name of Object.keys(document.components.schemas)) expect(places).toContain(`schema-${name}`);
  for (const [, target] of page.matchAll(/href="#([^"]+)"/g)) expect(places).toContain(target);
});

it('the page needs nothing that its Content-Security-Policy blocks', () => {
  expect(page).not.toMatch(/<script|<img|<link|<iframe|<form| style=| on[a-z]+="|javascript:/i);
  const style = /<style>([\s\S]*?)<\/style>/.exec(page)?.[1] ?? '';
  expect(DOCS_PAGE_POLICY).toContain(`'sha256-${createHash('sha256').update(style).digest('base64')}'`);
  expect(DOCS_PAGE_POLICY).toMatch(/^default-src 'none';/);
});

it('the page escapes all text of the document', () => {
  const hostile = structuredClone(document);
  hostile['info'] = { title: '</title><script>alert(1)</script>', description: '`<b>` & "q"' };
  const shown = docsPage(hostile, '"><script>');
  expect(shown).not.toContain('<script');
  expect(shown).toContain('<code>&lt;b&gt;</code> &amp; &quot;q&quot;');
});
