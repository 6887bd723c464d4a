import { useSyncExternalStore } from 'react';

/** Where the console is, read from the hash: `#/tokens/<id>?name=x` → segments ['tokens', '<id>'], query. */
export interface Route {
  segments: string[];
  query: URLSearchParams;
}

let cached: { hash: string; route: Route } | undefined;

function read(): Route {
  const hash = window.location.hash;
  if (cached?.hash === hash) return cached.route;
  const [path = '', search = ''] = hash.replace(/^#\/?/, '').split('?', 2);
  const route = { segments: path.split('/').filter(Boolean), query: new URLSearchParams(search) };
  cached = { hash, route };
  return route;
}

function subscribe(onChange: () => void): () => void {
  window.addEventListener('hashchange', onChange);
  return () => window.removeEventListener('hashchange', onChange);
}

export function useRoute(): Route {
  return useSyncExternalStore(subscribe, read);
}

/** Goes to a page of the console. */
export function go(path: string): void {
  window.location.hash = path;
}

/** Keeps what a page shows (filters, order) in its address without a step in the history, for the way back and for links. */
export function keepInAddress(values: Record<string, string | null>): void {
  const { segments, query } = read();
  const next = new URLSearchParams(query);
  for (const [name, value] of Object.entries(values)) {
    if (value) next.set(name, value);
    else next.delete(name);
  }
  const search = next.toString();
  window.history.replaceState(null, '', `#/${segments.join('/')}${search ? `?${search}` : ''}`);
}
