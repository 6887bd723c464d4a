/** A peer of the forward-auth benchmark: node:http that allows every request. Prints its port. */
import { createServer } from 'node:http';

const server = createServer({ keepAliveTimeout: 120_000 }, (_req, res) => {
  res.writeHead(204);
  res.end();
});
server.listen(0, '127.0.0.1', () => console.log(`port ${server.address().port}`));
