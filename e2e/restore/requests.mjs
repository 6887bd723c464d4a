/**
 * What a drill calls, wherever it runs.
 * @typedef {Pick<import('@latchkey/testing').Cluster, 'call' | 'admin' | 'cookie' | 'guardedPath'> & {
 *   readonly gateways: readonly Endpoint[], readonly tokenServices: readonly Endpoint[] }} Cluster
 * @typedef {Readonly<Pick<import('@latchkey/testing').Member, 'name' | 'url'>>} Endpoint
 */

/**
 * Calls the management API as the administrator.
 * @param {Cluster} cluster @param {string} method @param {string} target @param {object} [body]
 * @returns {Promise<any>} its body
 * @throws when the response is an error
 */
export async function must(cluster, method, target, body) {
  const response = await cluster.call(method, target, body);
  if (response.status >= 300)
    throw new Error(`${method} ${target} returned ${response.status}: ${JSON.stringify(response.body)}`);
  return response.body;
}

/**
 * Calls it with the given credentials, or without any. Status 0: no response.
 * @param {Cluster} cluster @param {string} method @param {string} target
 * @param {{ cookie?: string, authorization?: string, body?: object }} [what]
 */
export async function asAnyone(cluster, method, target, { cookie, authorization, body } = {}) {
  const [service] = cluster.tokenServices;
  try {
    const response = await fetch(new URL(target, service?.url), {
      method,
      headers: {
        ...(cookie && { cookie }),
        ...(authorization && { authorization }),
        ...(body && { 'content-type': 'application/json' }),
      },
      ...(body && { body: JSON.stringify(body) }),
      signal: AbortSignal.timeout(10_000),
    });
    const text = await response.text();
    const set = response.headers.getSetCookie()[0]?.split(';', 1)[0];
    return { status: response.status, body: /** @type {unknown} */ (text ? JSON.parse(text) : {}), cookie: set };
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    return { status: 0, body: /** @type {unknown} */ ({}), cookie: undefined }; // refused, reset, timed out
  }
}
