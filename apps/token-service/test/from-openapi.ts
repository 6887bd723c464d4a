import type { OpenApiDocument } from '@latchkey/contracts';
import fc from 'fast-check';

type Schema = Record<string, unknown>;
interface Parameter {
  $ref?: string;
  name: string;
  in: 'path' | 'query' | 'header';
  required?: boolean;
  schema: Schema;
}
interface Operation {
  operationId: string;
  parameters?: Parameter[];
  requestBody?: { content: Record<string, { schema: Schema }> };
  responses: Record<string, unknown>;
}

/** One request, ready to be sent. */
export interface Request {
  operationId: string;
  method: string;
  path: string;
  headers: Record<string, string>;
  body: string | undefined;
}

export interface Call {
  operationId: string;
  /** The statuses that the document lists for it. */
  statuses: number[];
  requests: fc.Arbitrary<Request>;
}

/** Values that no schema describes: other types, unusual characters, long text. */
const junk: fc.Arbitrary<unknown> = fc.oneof(
  fc.jsonValue({ maxDepth: 2 }),
  fc.string({ unit: 'binary', maxLength: 40 }),
  fc.constantFrom(
    '\u0000',
    '\ud800',
    '\u202e',
    '%00',
    '../..',
    "' OR 1=1 --",
    '{{7*7}}',
    'x'.repeat(5_000),
    '__proto__',
  ),
  fc.constantFrom(-1, 0, 1e308, 2 ** 53, 0.5, null, true, [], {}),
);

/**
 * For each operation of the document, requests that mostly fit it and sometimes do not.
 * @param ids that exist, so that some requests find a resource
 */
export function callsOf(document: OpenApiDocument, ids: readonly string[]): Call[] {
  const { schemas } = document.components;
  const parameters = document.components['parameters'] as Record<string, Parameter>;
  const id = fc.oneof(fc.constantFrom(...ids), fc.uuid({ version: 7 }));

  function values(schema: Schema): fc.Arbitrary<unknown> {
    return fc.oneof({ weight: 12, arbitrary: fitting(schema) }, { weight: 1, arbitrary: junk });
  }

  function fitting(schema: Schema): fc.Arbitrary<unknown> {
    const { $ref, anyOf, type } = schema as { $ref?: string; anyOf?: Schema[]; type?: string | string[] };
    if ($ref) return fitting(schemas[$ref.split('/').at(-1)!] as Schema);
    if (anyOf) return fc.oneof(...anyOf.map(fitting));
    if (schema['const'] !== undefined) return fc.constant(schema['const']);
    if (schema['enum']) return fc.constantFrom(...(schema['enum'] as unknown[]));
    if (Array.isArray(type)) return fc.oneof(...type.map((one) => fitting({ ...schema, type: one })));
    switch (type) {
      case 'object':
        return objects(schema);
      case 'array':
        return fc.array(values(schema['items'] as Schema), { maxLength: Math.min(4, Number(schema['maxItems'] ?? 4)) });
      case 'integer':
      case 'number':
        return fc.integer({
          min: Number(schema['minimum'] ?? -5),
          max: Math.min(Number(schema['maximum'] ?? 1e9), 1e12),
        });
      case 'boolean':
        return fc.boolean();
      case 'null':
        return fc.constant(null);
      case 'string':
        return strings(schema);
      default:
        return junk;
    }
  }

  function objects(schema: Schema): fc.Arbitrary<unknown> {
    const properties = Object.entries((schema['properties'] ?? {}) as Record<string, Schema>);
    const required = (schema['required'] ?? []) as string[];
    const extra = schema['additionalProperties'];
    if (properties.length === 0 && typeof extra === 'object')
      return fc.dictionary(fc.stringMatching(/^[A-Za-z][A-Za-z0-9_.-]{0,9}$/), values(extra as Schema), { maxKeys: 3 });
    const known = fc.record(Object.fromEntries(properties.map(([name, inner]) => [name, values(inner)])), {
      requiredKeys: required.filter((name) => properties.some(([property]) => property === name)),
    });
    const unknown = fc.dictionary(fc.string({ maxLength: 12 }), junk, { maxKeys: 1 });
    return fc.oneof(
      { weight: 15, arbitrary: known },
      { weight: 1, arbitrary: fc.tuple(known, unknown).map(([a, b]) => ({ ...a, ...b })) },
    );
  }

  function strings(schema: Schema): fc.Arbitrary<string> {
    const pattern = schema['pattern'] as string | undefined;
    if (pattern?.startsWith('^[0-9a-f]{8}-')) return id;
    if (schema['format'] === 'date-time')
      return fc
        .date({ min: new Date(0), max: new Date('2120-01-01'), noInvalidDate: true })
        .map((at) => at.toISOString());
    if (schema['format'] === 'email') return fc.stringMatching(/^[a-z]{1,12}@example\.org$/);
    if (pattern) return fc.stringMatching(new RegExp(pattern));
    const maxLength = Math.min(Number(schema['maxLength'] ?? 30), 60);
    return fc.string({ minLength: Math.min(Number(schema['minLength'] ?? 0), maxLength), maxLength });
  }

  return Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, described]) => {
      const operation = described as unknown as Operation;
      const all = (operation.parameters ?? []).map((one) =>
        one.$ref ? parameters[one.$ref.split('/').at(-1)!]! : one,
      );
      const given = fc.record(Object.fromEntries(all.map((one) => [`${one.in} ${one.name}`, values(one.schema)])), {
        requiredKeys: all.filter((one) => one.in === 'path').map((one) => `path ${one.name}`),
      });
      const [[type, content] = []] = Object.entries(operation.requestBody?.content ?? {});
      const body = content ? fc.option(values(content.schema), { freq: 20, nil: undefined }) : fc.constant(undefined);
      return {
        operationId: operation.operationId,
        statuses: Object.keys(operation.responses).map(Number),
        requests: fc
          .tuple(given, body)
          .map(([parts, content]) => built(operation.operationId, method.toUpperCase(), path, parts, type, content)),
      };
    }),
  );
}

function built(
  operationId: string,
  method: string,
  template: string,
  parts: Record<string, unknown>,
  type: string | undefined,
  content: unknown,
): Request {
  const headers: Record<string, string> = {};
  const query = new URLSearchParams();
  let path = template;
  for (const [place, value] of Object.entries(parts)) {
    const [kind, name = ''] = place.split(' ');
    const text = asText(value);
    // An empty or dotted segment would be another path.
    if (kind === 'path')
      path = path.replace(`{${name}}`, /^\.{0,2}$/.test(text) ? '%20' : encodeURIComponent(text.toWellFormed()));
    else if (kind === 'query') query.set(name, text);
    else if (/^[\x20-\x7e]+$/.test(text)) headers[name] = text;
  }
  const search = query.toString();
  const isForm = type === 'application/x-www-form-urlencoded';
  if (content !== undefined && type) headers['content-type'] = type;
  const body = content === undefined ? undefined : isForm ? asForm(content) : JSON.stringify(content);
  return { operationId, method, path: search ? `${path}?${search}` : path, headers, body };
}

const asText = (value: unknown): string => (typeof value === 'string' ? value : (JSON.stringify(value) ?? ''));
const asForm = (value: unknown): string =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
    ? new URLSearchParams(
        Object.entries(value).map(([name, inner]): [string, string] => [name, asText(inner)]),
      ).toString()
    : asText(value);
