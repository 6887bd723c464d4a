/**
 * The upstream of the proxy benchmark where there is no nginx: as little as an HTTP server can do. Prints its port. At
 * …/echo it responds with what arrived.
 */
import { createServer } from 'node:http';
import { upstreamBody } from './upstream-body.mjs';

const body = Buffer.from(upstreamBody);
const headers = ['Content-Type', 'application/json', 'Content-Length', String(body.length)];
const server = createServer({ keepAliveTimeout: 120_000 }, (req, res) => {
  req.resume();
  if (req.url?.endsWith('/echo')) {
    const text = (name) => req.headers[name] ?? '';
    const echo = {
      authorization: text('authorization'),
      tokenId: text('x-latchkey-token-id'),
      owner: text('x-latchkey-owner'),
      scopes: text('x-latchkey-scopes'),
      requestId: text('x-request-id'),
      forwardedFor: text('x-forwarded-for'),
    };
    res.end(JSON.stringify(echo));
    return;
  }
  res.writeHead(200, headers);
  res.end(body);
});
server.listen(0, '127.0.0.1', () => console.log(`port ${server.address().port}`));
