/**
 * The peer of the proxy benchmark: the least proxy that node:http and undici's dispatch can be. It checks nothing,
 * rewrites nothing but framing, and has no time limits. `node bare-proxy.mjs <upstream>`; prints its port.
 */
import { createServer } from 'node:http';
import { Pool } from 'undici';

const pool = new Pool(process.argv[2], { pipelining: 1, bodyTimeout: 0, headersTimeout: 0 });
const HOP = new Set(['host', 'connection', 'keep-alive', 'transfer-encoding', 'upgrade']);

function passed(raw) {
  const headers = [];
  for (let i = 0; i < raw.length; i += 2) {
    const name = raw[i].toString();
    if (!HOP.has(name.toLowerCase())) headers.push(name, raw[i + 1].toString());
  }
  return headers;
}

const server = createServer({ keepAliveTimeout: 60_000 }, (req, res) => {
  const hasBody = req.headers['content-length'] !== undefined || req.headers['transfer-encoding'] !== undefined;
  pool.dispatch(
    { path: req.url, method: req.method, headers: passed(req.rawHeaders), body: hasBody ? req : null },
    {
      onRequestStart(controller) {
        res.on('close', () => {
          if (!res.writableFinished) controller.abort(new Error('closed'));
        });
      },
      onResponseStart(controller, status) {
        res.writeHead(status, passed(controller.rawHeaders));
      },
      onResponseData(controller, chunk) {
        if (!res.write(chunk)) {
          controller.pause();
          res.once('drain', () => controller.resume());
        }
      },
      onResponseEnd() {
        res.end();
      },
      onResponseError() {
        res.headersSent ? res.destroy() : res.writeHead(502).end();
      },
    },
  );
});
server.listen(0, '127.0.0.1', () => console.log(`port ${server.address().port}`));
