import { type Caller, sees } from './caller.js';
import type { FieldError } from './http.js';
import { isObject, type Read, readDocumentContent, readProjectId, readWhole } from './input.js';
import type { Store } from './store.js';

/** A tool's outcome: data for the model, or what it did wrong in words it can act on. */
export type ToolOutcome = { ok: true; text: string; data: Record<string, unknown> } | { ok: false; text: string };

export interface ToolCall {
  store: Store;
  caller: Caller;
  /** Reports progress: `done` of `total`, rising. Does nothing when the caller did not ask for it. */
  progress(done: number, total: number, message: string): Promise<void>;
  signal: AbortSignal;
}

export interface Tool {
  name: string;
  title: string;
  description: string;
  inputSchema: object;
  annotations: { readOnlyHint: boolean };
  /** True when it takes long enough to respond with an event stream to callers that accept one. */
  slow: boolean;
  run(input: Record<string, unknown>, call: ToolCall): Promise<ToolOutcome>;
}

const PROJECT = { type: 'string', format: 'uuid', description: 'Project id' } as const;

function schema(properties: Record<string, object>, required: string[]): object {
  return { type: 'object', properties, required, additionalProperties: false };
}

function invalid(errors: FieldError[]): ToolOutcome {
  return { ok: false, text: errors.map(({ field, message }) => `${field} ${message}`).join('; ') };
}

function unknownInputs(input: Record<string, unknown>, known: string[]): FieldError[] {
  return Object.keys(input)
    .filter((field) => !known.includes(field))
    .slice(0, 10)
    .map((field) => ({ field: field.slice(0, 100), message: `is not known; known are ${known.join(', ')}` }));
}

function projectFor(input: Record<string, unknown>, { caller }: ToolCall, known: string[]): Read<string> {
  const strange = unknownInputs(input, known);
  if (strange.length > 0) return { ok: false, errors: strange };
  const read = readProjectId(input['project']);
  if (!read.ok || sees(caller, read.value)) return read;
  return { ok: false, errors: [{ field: 'project', message: 'is none that this token reaches' }] };
}

const search: Tool = {
  name: 'search',
  title: 'Search documents',
  description: 'Finds documents of a project whose title or body contains the text, ignoring case. At most 20.',
  inputSchema: schema({ project: PROJECT, query: { type: 'string', minLength: 1, maxLength: 200 } }, [
    'project',
    'query',
  ]),
  annotations: { readOnlyHint: true },
  slow: false,
  async run(input, call) {
    const project = projectFor(input, call, ['project', 'query']);
    if (!project.ok) return invalid(project.errors);
    const { query } = input;
    if (typeof query !== 'string' || query.length < 1 || query.length > 200) {
      return invalid([{ field: 'query', message: 'must be text of 1 to 200 characters' }]);
    }
    const wanted = query.toLowerCase();
    const found = call.store
      .documents(project.value)
      .filter(({ title, body }) => title.toLowerCase().includes(wanted) || body.toLowerCase().includes(wanted))
      .slice(0, 20)
      .map(({ id, title }) => ({ id, title }));
    return {
      ok: true,
      text: found.map(({ id, title }) => `${id} ${title}`).join('\n') || 'Nothing found.',
      data: { documents: found },
    };
  },
};

const readDocument: Tool = {
  name: 'read_document',
  title: 'Read a document',
  description: 'The title and body of one document.',
  inputSchema: schema({ project: PROJECT, id: { type: 'string', description: 'Document id' } }, ['project', 'id']),
  annotations: { readOnlyHint: true },
  slow: false,
  async run(input, call) {
    const project = projectFor(input, call, ['project', 'id']);
    if (!project.ok) return invalid(project.errors);
    const document = typeof input['id'] === 'string' ? call.store.document(project.value, input['id']) : undefined;
    if (!document) return invalid([{ field: 'id', message: 'names no document of this project; search finds ids' }]);
    return { ok: true, text: `${document.title}\n\n${document.body}`, data: { document } };
  },
};

const createDocument: Tool = {
  name: 'create_document',
  title: 'Write a document',
  description: 'Adds a document to a project.',
  inputSchema: schema(
    {
      project: PROJECT,
      title: { type: 'string', minLength: 1, maxLength: 200 },
      body: { type: 'string', maxLength: 16384 },
    },
    ['project', 'title'],
  ),
  annotations: { readOnlyHint: false },
  slow: false,
  async run(input, call) {
    const project = projectFor(input, call, ['project', 'title', 'body']);
    if (!project.ok) return invalid(project.errors);
    const content = readDocumentContent(input, ['project']);
    if (!content.ok) return invalid(content.errors);
    const created = call.store.createDocument(project.value, content.value, call.caller.owner);
    if ('refused' in created) return { ok: false, text: created.detail };
    return { ok: true, text: `Written as ${created.id}.`, data: { document: created } };
  },
};

const watch: Tool = {
  name: 'watch',
  title: 'Watch a project',
  description: 'Watches a project for some seconds and returns which documents changed, with progress meanwhile.',
  inputSchema: schema(
    {
      project: PROJECT,
      seconds: { type: 'integer', minimum: 1, maximum: 300, default: 5 },
      intervalMs: {
        type: 'integer',
        minimum: 50,
        maximum: 10000,
        default: 1000,
        description: 'Between two progress notifications',
      },
    },
    ['project'],
  ),
  annotations: { readOnlyHint: true },
  slow: true,
  async run(input, call) {
    const project = projectFor(input, call, ['project', 'seconds', 'intervalMs']);
    const seconds = readWhole(input['seconds'], 'seconds', { min: 1, max: 300, standard: 5 });
    const intervalMs = readWhole(input['intervalMs'], 'intervalMs', { min: 50, max: 10_000, standard: 1_000 });
    if (!project.ok) return invalid(project.errors);
    if (!seconds.ok) return invalid(seconds.errors);
    if (!intervalMs.ok) return invalid(intervalMs.errors);

    const changes: { type: string; documentId: string; title: string }[] = [];
    const stopListening = call.store.onChange(({ projectId, type, documentId, title }) => {
      if (projectId === project.value && changes.length < 100) changes.push({ type, documentId, title });
    });
    try {
      const steps = Math.max(1, Math.round((seconds.value * 1000) / intervalMs.value));
      for (let step = 1; step <= steps && !call.signal.aborted; step++) {
        await sleep(intervalMs.value, call.signal);
        await call.progress(step, steps, `${changes.length} changes so far`);
      }
    } finally {
      stopListening();
    }
    return { ok: true, text: `${changes.length} changes in ${seconds.value} s.`, data: { changes } };
  },
};

/** Resolves after the time, or at once when aborted. */
function sleep(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener('abort', done);
  });
}

export const TOOLS: ReadonlyMap<string, Tool> = new Map(
  [search, readDocument, createDocument, watch].map((tool) => [tool.name, tool]),
);

/** The arguments of a call as an object, empty when absent; undefined when they are something else. */
export function toolArguments(value: unknown): Record<string, unknown> | undefined {
  if (value === undefined) return {};
  return isObject(value) ? value : undefined;
}
