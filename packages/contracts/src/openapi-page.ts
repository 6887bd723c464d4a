import { createHash } from 'node:crypto';
import type { OpenApiDocument } from './openapi.js';

type Json = Record<string, unknown>;

const STYLE = `:root{color-scheme:light dark;--line:#8884;--soft:#8881}
*{box-sizing:border-box}body{margin:0;font:16px/1.5 system-ui,sans-serif;display:grid;grid-template-columns:18rem 1fr}
nav{position:sticky;top:0;height:100vh;overflow:auto;padding:1rem;border-right:1px solid var(--line);font-size:.875rem}
nav ul{list-style:none;margin:0 0 1rem;padding:0}main{padding:1rem 2rem 4rem;max-width:60rem;min-width:0}
a{color:inherit}code,pre{font:.875em/1.5 ui-monospace,monospace}pre{background:var(--soft);padding:.75rem;overflow:auto}
section{border-top:1px solid var(--line);padding-top:.5rem;margin-top:2rem}table{border-collapse:collapse;width:100%}
th,td{text-align:left;vertical-align:top;padding:.25rem .75rem .25rem 0;border-bottom:1px solid var(--line)}
summary{cursor:pointer}.m{display:inline-block;min-width:4.5em;font-weight:600}
@media(max-width:50rem){body{display:block}nav{position:static;height:auto;border:0}main{padding:1rem}}`;

/**
 * Content-Security-Policy of `GET /v1/docs`: scripts, frames, forms and external resources are blocked; the page needs
 * none.
 */
export const DOCS_PAGE_POLICY = `default-src 'none'; style-src 'sha256-${createHash('sha256').update(STYLE).digest('base64')}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`;

/**
 * The document as one page of HTML, without scripts. All text is escaped.
 * @param documentUrl URL of the document, for the link to it
 */
export function docsPage(document: OpenApiDocument, documentUrl = '/v1/openapi.json'): string {
  const info = document['info'] as { title: string; description: string };
  const tags = document['tags'] as { name: string; description: string }[];
  const calls = Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ method: method.toUpperCase(), path, operation })),
  );
  const of = (tag: string) => calls.filter(({ operation }) => (operation['tags'] as string[]).includes(tag));
  const schemas = Object.entries(document.components.schemas);
  const menu = tags.map(
    ({ name }) =>
      `<strong>${text(name)}</strong><ul>${of(name)
        .map(({ operation }) => `<li><a href="#${text(operation['operationId'])}">${text(operation['summary'])}</a>`)
        .join('')}</ul>`,
  );
  const body = tags.map(
    ({ name, description }) =>
      `<h2>${text(name)}</h2><p>${prose(description)}</p>${of(name)
        .map((one) => callOf(one, document))
        .join('')}`,
  );
  return `<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>${text(info.title)}</title><style>${STYLE}</style>
<nav aria-label="Calls">${menu.join('')}<strong>Schemas</strong><ul>${schemas
    .map(([name]) => `<li><a href="#schema-${text(name)}">${text(name)}</a>`)
    .join('')}</ul></nav>
<main><h1>${text(info.title)}</h1>${prose(info.description)
    .split('\n\n')
    .map((paragraph) => `<p>${paragraph}</p>`)
    .join('')}
<p><a href="${text(documentUrl)}">The OpenAPI 3.1 document</a></p>${body.join('')}
<h2>Schemas</h2>${schemas
    .map(([name, schema]) => `<section id="schema-${text(name)}"><h3>${text(name)}</h3>${fields(schema)}</section>`)
    .join('')}</main></html>
`;
}

function callOf({ method, path, operation }: { method: string; path: string; operation: Json }, all: OpenApiDocument) {
  const parameters = ((operation['parameters'] ?? []) as Json[]).map((parameter) => resolved(parameter, all));
  const request = operation['requestBody'] as { required: boolean; content: Record<string, Json> } | undefined;
  const responses = Object.entries(operation['responses'] as Record<string, Json>).map(
    ([status, response]) => [status, resolved(response, all)] as const,
  );
  const rows = parameters.map((parameter) => [
    `<code>${text(parameter['name'])}</code>`,
    text(`${parameter['in']}${parameter['required'] ? ', required' : ''}`),
    typeOf(parameter['schema'] as Json),
    prose(String(parameter['description'] ?? '')),
  ]);
  return `<section id="${text(operation['operationId'])}"><h3>${text(operation['summary'])}</h3>
<p><code><span class="m">${method}</span>${text(path)}</code></p><p>${prose(String(operation['description']))}</p>
${parameters.length ? table(['Parameter', 'In', 'Type', 'Meaning'], rows) : ''}
${request ? `<h4>Body${request.required ? '' : ' (optional)'}</h4>${contents(request.content)}` : ''}
<h4>Responses</h4>${responses
    .map(([status, response]) => {
      const content = response['content'] as Record<string, Json> | undefined;
      const line = `<code>${status}</code> ${prose(String(response['description']))}`;
      return content
        ? `<details><summary>${line}</summary>${contents(content)}</details>`
        : `<p>${line}, without a body</p>`;
    })
    .join('')}</section>`;
}

function contents(content: Record<string, Json>): string {
  return Object.entries(content)
    .map(([type, { schema, example, examples }]) => {
      const shown = example ?? (Object.values((examples ?? {}) as Record<string, Json>)[0]?.['value'] as unknown);
      return `<p><code>${text(type)}</code></p>${fields(schema as Json)}${shown ? `<pre>${text(JSON.stringify(shown, null, 2))}</pre>` : ''}`;
    })
    .join('');
}

/** A schema's fields as a table, or its type where it has none. */
function fields(schema: Json): string {
  const properties = schema['properties'] as Record<string, Json> | undefined;
  if (!properties) return `<p>${typeOf(schema)}</p>`;
  const required = (schema['required'] ?? []) as string[];
  const rows = Object.entries(properties).map(([name, inner]) => [
    `<code>${text(name)}</code>${required.includes(name) ? '' : ' (optional)'}`,
    typeOf(inner),
    [prose(String(inner['description'] ?? '')), ...limitsOf(inner)].filter(Boolean).join('; '),
  ]);
  return table(['Field', 'Type', 'Meaning'], rows);
}

function typeOf(schema: Json): string {
  const { $ref, anyOf, items, properties } = schema as {
    $ref?: string;
    anyOf?: Json[];
    items?: Json;
    properties?: Json;
  };
  if ($ref) {
    const name = text($ref.split('/').at(-1));
    return `<a href="#schema-${name}">${name}</a>`;
  }
  if (anyOf) return anyOf.map(typeOf).join(' or ');
  if (schema['const'] !== undefined) return `<code>${text(JSON.stringify(schema['const']))}</code>`;
  if (schema['enum']) return (schema['enum'] as unknown[]).map((one) => `<code>${text(one)}</code>`).join(', ');
  if (items) return `list of ${typeOf(items)}`;
  if (properties)
    return `{ ${Object.entries(properties)
      .map(([name, inner]) => `${text(name)}: ${typeOf(inner as Json)}`)
      .join(', ')} }`;
  const type = Array.isArray(schema['type']) ? schema['type'].join(' or ') : (schema['type'] ?? 'any JSON');
  return text(schema['format'] ? `${type} (${schema['format']})` : type);
}

const LIMITS_SHOWN: Record<string, string> = {
  default: 'default',
  minimum: 'at least',
  maximum: 'at most',
  minLength: 'shortest',
  maxLength: 'longest',
  minItems: 'least items',
  maxItems: 'most items',
};

const limitsOf = (schema: Json) =>
  Object.entries(LIMITS_SHOWN)
    .filter(([name]) => schema[name] !== undefined)
    .map(([name, word]) => `${word} <code>${text(JSON.stringify(schema[name]))}</code>`);

function resolved(value: Json, all: OpenApiDocument): Json {
  const [, kind, name] = /^#\/components\/(\w+)\/(.+)$/.exec(String(value['$ref'] ?? '')) ?? [];
  const named = kind && (all.components[kind] as Record<string, Json> | undefined);
  return (named && name && named[name]) || value;
}

const table = (head: string[], rows: string[][]) =>
  `<table><tr>${head.map((cell) => `<th>${cell}`).join('')}${rows
    .map((cells) => `<tr>${cells.map((cell) => `<td>${cell}`).join('')}`)
    .join('')}</table>`;

/** Escaped for text and for quoted attributes. */
function text(value: unknown): string {
  const entities: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };
  return String(value).replace(/[&<>"']/g, (character) => entities[character] ?? '');
}

/** Escaped, with `code` in backticks. */
const prose = (value: string) => text(value).replace(/`([^`]+)`/g, '<code>$1</code>');
