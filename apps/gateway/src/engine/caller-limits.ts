/** Longest time until a head is complete. */
export const HEAD_TIMEOUT_MS = 10_000;
/** In a stop: how long after it was opened a connection is kept for its first request, which is on its way as a rule. */
export const FIRST_REQUEST_MS = 1_000;
/** Longest time until a whole request, body included, has arrived. */
export const REQUEST_TIMEOUT_MS = 3_600_000;
/** Longer than the idle timeout of most load balancers. */
export const KEEP_ALIVE_MS = 65_000;
/** How long a caller can take to read the end of a response, when nothing else is awaited of it. */
export const UNREAD_MS = 120_000;
/** How long a body is read and discarded after the response. */
export const UNWANTED_BODY_MS = 2_000;
/** Bytes of requests that came before their turn; more are left to the kernel. */
export const AHEAD_BYTES_MAX = 65_536;
/** How long more than that can wait for its turn. While it does, the end of the connection is not noticed. */
export const AHEAD_MS = 60_000;
