import type { ErrorCode, Problem } from '@latchkey/contracts';

/**
 * Why a call failed. The server's own codes are the closed list of docs/generated/errors.md; the client adds
 * `network` (no response), `timeout` (`timeoutMs` passed) and `bad_answer` (a response that is not Latchkey's, from a
 * proxy for example).
 */
export type FailureCode = ErrorCode | 'network' | 'timeout' | 'bad_answer';

export interface Failure {
  code: FailureCode;
  /** HTTP status; 0 when there was no response. */
  status: number;
  /** What happened, and what to do next. Never contains a secret. */
  detail: string;
  /** Finds the request in the server's logs and, for a denial, its reason; null when there was no response. */
  requestId: string | null;
  /** The fields at fault. */
  errors?: NonNullable<Problem['errors']>;
  /** `Retry-After` in milliseconds; null without one. */
  retryAfterMs?: number | null;
}

/** Thrown by every call that fails. A call aborted by its `signal` throws that signal's reason instead. */
export class LatchkeyError extends Error {
  override name = 'LatchkeyError';
  readonly code: FailureCode;
  readonly status: number;
  readonly detail: string;
  readonly requestId: string | null;
  readonly errors: readonly { field: string; message: string }[];
  readonly retryAfterMs: number | null;

  constructor(failure: Failure, cause?: unknown) {
    super(failure.detail, cause === undefined ? undefined : { cause });
    this.code = failure.code;
    this.status = failure.status;
    this.detail = failure.detail;
    this.requestId = failure.requestId;
    this.errors = failure.errors ?? [];
    this.retryAfterMs = failure.retryAfterMs ?? null;
  }
}

/** The error of a response that is not a success: RFC 9457 problem details, or `bad_answer`. */
export async function errorOf(response: Response): Promise<LatchkeyError> {
  const { status, headers } = response;
  const retryAfterMs = readRetryAfter(headers.get('retry-after'), Date.now());
  const requestId = headers.get('x-request-id');
  if (response.type === 'opaqueredirect' || (status >= 300 && status < 400)) {
    const detail = 'the server redirects this URL; set baseUrl to where it redirects to';
    return new LatchkeyError({ code: 'bad_answer', status, detail, requestId });
  }
  const text = await response.text();
  const body = parsed(text);
  if (isProblem(body)) {
    return new LatchkeyError({
      code: body.code,
      status,
      detail: body.detail,
      requestId: body.requestId,
      errors: body.errors ?? [],
      retryAfterMs,
    });
  }
  const detail = `the response has status ${status} and is not from Latchkey; check baseUrl and any proxy`;
  return new LatchkeyError({ code: 'bad_answer', status, detail, requestId, retryAfterMs });
}

/**
 * `Retry-After` (RFC 9110 section 10.2.3) in milliseconds from now: seconds or a date; null when absent or neither.
 * @param nowMs Unix milliseconds
 */
export function readRetryAfter(value: string | null, nowMs: number): number | null {
  if (value === null) return null;
  if (/^\d{1,9}$/.test(value)) return Number(value) * 1_000;
  const at = Date.parse(value);
  return Number.isNaN(at) ? null : Math.max(0, at - nowMs);
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined; // a proxy's page: reported as bad_answer
  }
}

function isProblem(body: unknown): body is Problem {
  if (typeof body !== 'object' || body === null) return false;
  const { code, detail, requestId } = body as Partial<Problem>;
  return typeof code === 'string' && typeof detail === 'string' && typeof requestId === 'string';
}
