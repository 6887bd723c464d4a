/** The upstream of the proxy benchmark: as little as an HTTP server can do. Prints its port. */
import { createServer } from 'node:http';

const body = Buffer.from(JSON.stringify({ items: Array.from({ length: 5 }, (_, id) => ({ id, name: `item ${id}` })) }));
const headers = ['Content-Type', 'application/json', 'Content-Length', String(body.length)];
const server = createServer({ keepAliveTimeout: 60_000 }, (req, res) => {
  req.resume();
  res.writeHead(200, headers);
  res.end(body);
});
server.listen(0, '127.0.0.1', () => console.log(`port ${server.address().port}`));
