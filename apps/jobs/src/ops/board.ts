import type { IncomingMessage, ServerResponse } from 'node:http';
import { secretMatcher } from '@latchkey/runtime';
import type { Queue } from 'bullmq';

export const BOARD_PATH = '/queues';

export type Handler = (req: IncomingMessage, res: ServerResponse) => void;

/**
 * The queues' board as a handler of the ops port. It requires the password by HTTP Basic (RFC 7617; any user name), and
 * rejects cross-site changes. Without a password it is off.
 */
export async function boardHandler(queues: readonly Queue[], password: string | undefined): Promise<Handler> {
  if (!password)
    return (_req, res) => respond(res, 404, 'The board is off: set BOARD_PASSWORD (at least 16 characters) to see it.');
  // Loaded only when used: a worker without a board starts faster.
  const [{ createBullBoard }, { BullMQAdapter }, { FastifyAdapter }, { fastify }] = await Promise.all([
    import('@bull-board/api'),
    import('@bull-board/api/bullMQAdapter'),
    import('@bull-board/fastify'),
    import('fastify'),
  ]);
  const board = new FastifyAdapter();
  board.setBasePath(BOARD_PATH);
  createBullBoard({
    queues: queues.map((queue) => new BullMQAdapter(queue)),
    serverAdapter: board,
    options: { uiConfig: { boardTitle: 'Latchkey jobs' } },
  });
  const app = fastify({ bodyLimit: 65_536, forceCloseConnections: true });
  await app.register(board.registerPlugin(), { prefix: BOARD_PATH });
  await app.ready();
  return (req, res) => {
    if (!isPassword(req.headers.authorization, password)) {
      res.setHeader('www-authenticate', 'Basic realm="Latchkey jobs", charset="UTF-8"');
      return respond(res, 401, 'The board requires BOARD_PASSWORD.');
    }
    const site = req.headers['sec-fetch-site'];
    const origin = req.headers.origin;
    const foreign = (site && site !== 'same-origin' && site !== 'none') || (origin && !sameHost(origin, req));
    if (req.method !== 'GET' && req.method !== 'HEAD' && foreign)
      return respond(res, 403, 'Another site may not change the queues.');
    res.setHeader('cache-control', 'no-store');
    res.setHeader('x-frame-options', 'DENY');
    // The page would fetch fonts from a third party, which would see each visit.
    res.setHeader('content-security-policy', "default-src 'self' 'unsafe-inline' data:; frame-ancestors 'none'");
    res.setHeader('referrer-policy', 'no-referrer');
    app.routing(req, res);
  };
}

function sameHost(origin: string, req: IncomingMessage): boolean {
  return URL.canParse(origin) && new URL(origin).host === req.headers.host;
}

function isPassword(header: string | undefined, password: string): boolean {
  const [scheme, value = ''] = (header ?? '').split(' ');
  if (scheme?.toLowerCase() !== 'basic') return false;
  const presented = Buffer.from(value, 'base64')
    .toString('utf8')
    .replace(/^[^:]*:/, '');
  return secretMatcher([password])(presented);
}

function respond(res: ServerResponse, status: number, text: string): void {
  res.writeHead(status, { 'content-type': 'text/plain; charset=utf-8', 'cache-control': 'no-store' }).end(`${text}\n`);
}
