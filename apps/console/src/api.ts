import { type CallName, createClient, LatchkeyError } from '@latchkey/client';
import { QueryClient } from '@tanstack/react-query';
import { t } from './texts.js';

export const api = createClient({ baseUrl: '' });

export const queries = new QueryClient({
  defaultOptions: {
    queries: { retry: false, staleTime: 5_000, refetchOnWindowFocus: true },
    mutations: { gcTime: 0 },
  },
});

const otherTabs = new BroadcastChannel('latchkey');
otherTabs.onmessage = (message: MessageEvent<CallName[]>) => refresh(message.data);

function refresh(names: readonly CallName[]): void {
  for (const name of names) void queries.invalidateQueries({ queryKey: [name] });
}

/** Reads these again, here and in the other tabs: a change was made that shows in them. */
export function changed(...names: CallName[]): void {
  refresh(names);
  otherTabs.postMessage(names);
}

export interface Explanation {
  title: string;
  detail: string;
  requestId?: string;
}

/** What went wrong, as people should read it. */
export function explain(error: unknown): Explanation {
  if (!(error instanceof LatchkeyError)) return { title: t.errors.unexpected, detail: String(error) };
  const fields = error.errors.map((e) => `${e.field}: ${e.message}`).join('; ');
  const title = t.errors.titles[error.code] ?? t.errors.unexpected;
  return { title, detail: fields || error.detail, ...(error.requestId ? { requestId: error.requestId } : {}) };
}

/** The message for one field of a form, when the answer named it. */
export function fieldError(error: unknown, field: string): string | undefined {
  if (!(error instanceof LatchkeyError)) return undefined;
  return error.errors.find((e) => e.field === field || e.field.startsWith(`${field}.`))?.message;
}

export function isSignedOut(error: unknown): boolean {
  return error instanceof LatchkeyError && error.status === 401;
}
