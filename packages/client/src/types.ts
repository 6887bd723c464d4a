import type { ENDPOINTS } from '@latchkey/contracts';
import type { z } from 'zod';

type Endpoints = typeof ENDPOINTS;
/** The name of a call: a method of the client, and the call's `operationId` in the OpenAPI document. */
export type CallName = keyof Endpoints;

type Given<K extends CallName, P extends 'params' | 'query' | 'body'> =
  Endpoints[K] extends Record<P, infer S extends z.ZodType> ? z.input<S> : never;

type Needed<Name extends string, T, Optional> = [T] extends [never]
  ? unknown
  : Optional extends true
    ? { [P in Name]?: T }
    : { [P in Name]: T };

type Empty = Record<never, never>;
type AllOptional<T> = Empty extends T ? true : false;
type BodyOptional<K extends CallName> = Endpoints[K] extends { bodyOptional: true } ? true : false;

type InputOf<K extends CallName> = Needed<'params', Given<K, 'params'>, false> &
  Needed<'query', Given<K, 'query'>, AllOptional<Given<K, 'query'>>> &
  Needed<'body', Given<K, 'body'>, BodyOptional<K>>;

/** What a call takes: `params` for its path, `query`, `body`; only those that it has. */
export type Input<K extends CallName> = { [P in keyof InputOf<K>]: InputOf<K>[P] };

type AnswersOf<K extends CallName> = Endpoints[K]['answers'];
type BodyOf<S> = S extends z.ZodType ? z.output<S> : null;

/** A call's response by status: comparing `status` narrows `body`. */
export type Answer<K extends CallName> = {
  [S in keyof AnswersOf<K>]: { status: S; body: BodyOf<AnswersOf<K>[S]>; headers: Headers };
}[keyof AnswersOf<K>];

/** The body of a call's response; a union where statuses differ; null where there is none. */
export type Body<K extends CallName> = { [S in keyof AnswersOf<K>]: BodyOf<AnswersOf<K>[S]> }[keyof AnswersOf<K>];

type HasHeader<K extends CallName, Name extends string> = Endpoints[K] extends { headers: readonly (infer H)[] }
  ? Name extends H
    ? true
    : false
  : false;

export interface CommonOptions {
  /** The media type of the response, where a call has several; JSON by default. With `open` or `call`. */
  accept?: string;
  /** Aborts the call; the promise then rejects with the signal's reason. */
  signal?: AbortSignal;
  /** Timeout of the call, retries included, in milliseconds; the client's `timeoutMs` by default. */
  timeoutMs?: number;
}

export type Options<K extends CallName> = CommonOptions &
  (HasHeader<K, 'Prefer'> extends true
    ? {
        /**
         * Longest to wait until the change is effective everywhere, in whole seconds (`Prefer: wait`, RFC 7240). 0
         * returns at once, mostly with `effective: false`. By default the server waits as long as a confirmation can take.
         */
        waitSeconds?: number;
      }
    : unknown) &
  (HasHeader<K, 'Idempotency-Key'> extends true
    ? {
        /** Identifies this change, so that a repetition does not apply it twice; random by default. */
        idempotencyKey?: string;
      }
    : unknown);

/** Calls that return a page: `{items, nextCursor}`. */
export type PagedCall = {
  [K in CallName]: Body<K> extends { items: unknown[]; nextCursor: string | null } ? K : never;
}[CallName];
export type Item<K extends PagedCall> = Body<K> extends { items: (infer T)[] } ? T : never;

type Arguments<K extends CallName> =
  AllOptional<Input<K>> extends true
    ? [input?: Input<K>, options?: Options<K>]
    : [input: Input<K>, options?: Options<K>];

/** One method per call of the management API. Each returns the body or throws LatchkeyError. */
export type Calls = { [K in CallName]: (...args: Arguments<K>) => Promise<Body<K>> };

export interface Client extends Calls {
  /** Like the method of that name, but returns status and headers too. */
  call<K extends CallName>(name: K, ...args: Arguments<K>): Promise<Answer<K>>;
  /**
   * Like the method of that name, but returns as soon as the headers have arrived, with the body unread: for long streams
   * such as `exportAudit`. `timeoutMs` applies until then only.
   */
  open<K extends CallName>(name: K, ...args: Arguments<K>): Promise<Response>;
  /** All items of a paged call, fetched page by page as they are consumed. */
  each<K extends PagedCall>(name: K, ...args: Arguments<K>): AsyncGenerator<Item<K>, void, undefined>;
  /** The pages of a paged call, from `query.cursor` or the first. */
  pages<K extends PagedCall>(name: K, ...args: Arguments<K>): AsyncGenerator<Body<K>, void, undefined>;
}
