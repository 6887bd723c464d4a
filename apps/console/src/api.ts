import { type CallName, createClient, LatchkeyError } from '@latchkey/client';
import type { Token } from '@latchkey/contracts';
import { type InfiniteData, QueryClient } from '@tanstack/react-query';
import { t } from './texts.js';

export const api = createClient({ baseUrl: '' });

/** A list longer than this many pages is not read again as a whole: what is known to have changed is put into it. */
export const PAGES_READ_AGAIN_MAX = 3;

export const queries = new QueryClient({
  defaultOptions: {
    queries: { retry: false, staleTime: 5_000, refetchOnWindowFocus: true },
    mutations: { gcTime: 0 },
  },
});

type TokenPages = InfiniteData<{ items: Token[]; nextCursor: string | null }>;
const isPages = (data: unknown): data is TokenPages => typeof data === 'object' && data !== null && 'pages' in data;

interface Change {
  names: CallName[];
  tokens: Token[];
}

const otherTabs = new BroadcastChannel('latchkey');
otherTabs.onmessage = (message: MessageEvent<Change>) => take(message.data);

function take({ names, tokens }: Change): void {
  if (tokens.length > 0) putTokens(tokens);
  void queries.invalidateQueries({
    predicate: ({ queryKey, state: { data } }) =>
      names.includes(queryKey[0] as CallName) && !(isPages(data) && data.pages.length > PAGES_READ_AGAIN_MAX),
  });
}

/** Puts records as just answered in the place of those that are remembered. */
function putTokens(tokens: readonly Token[]): void {
  const byId = new Map(tokens.map((token) => [token.id, token]));
  for (const token of tokens) queries.setQueryData(['getToken', token.id], token);
  queries.setQueriesData<unknown>({ queryKey: ['listTokens'] }, (data: unknown) =>
    isPages(data)
      ? {
          ...data,
          pages: data.pages.map((page) =>
            page.items.some(({ id }) => byId.has(id))
              ? { ...page, items: page.items.map((token) => byId.get(token.id) ?? token) }
              : page,
          ),
        }
      : data,
  );
}

/** Reads these again, here and in the other tabs: a change was made that shows in them. */
export function changed(...names: CallName[]): void {
  tell({ names, tokens: [] });
}

/** The same for tokens, of which the answer to the change has told the new state. */
export function changedTokens(...tokens: Token[]): void {
  tell({ names: ['listTokens', 'getToken', 'listAudit'], tokens });
}

function tell(change: Change): void {
  take(change);
  otherTabs.postMessage(change);
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
