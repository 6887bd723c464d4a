/** Where notices go: a real mail server and a real HTTP receiver, which count what they took by its id. */
import { createServer } from 'node:http';
import { SMTPServer } from 'smtp-server';

/** @typedef {{ url: string, seen: Map<string, number>, close(): Promise<void> }} Receiver */

const note = (/** @type {Map<string, number>} */ seen, /** @type {string} */ id) =>
  seen.set(id, (seen.get(id) ?? 0) + 1);

/** By Message-ID without host. @returns {Promise<Receiver>} */
export async function mailServer() {
  const seen = new Map();
  const server = new SMTPServer({
    authOptional: true,
    disabledCommands: ['STARTTLS'],
    logger: false,
    onData(stream, _session, done) {
      let head = '';
      stream.setEncoding('utf8').on('data', (chunk) => {
        if (head.length < 8_192) head += chunk;
      });
      stream.on('end', () => {
        // An email counts as accepted with the reply to its end (RFC 5321 section 4.2.5).
        if (!stream.sizeExceeded) note(seen, /^Message-ID: <([^@>]+)@/im.exec(head)?.[1] ?? head);
        done();
      });
    },
  });
  server.on('error', () => undefined); // a sender that was killed
  await new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(null)));
  const { port } = /** @type {import('node:net').AddressInfo} */ (server.server.address());
  return {
    url: `smtp://127.0.0.1:${port}`,
    seen,
    close: () => new Promise((resolve) => server.close(() => resolve())),
  };
}

/** By webhook-id. @returns {Promise<Receiver>} */
export async function webhookReceiver() {
  const seen = new Map();
  const server = createServer((req, res) => {
    req.resume().on('end', () => {
      note(seen, String(req.headers['webhook-id']));
      res.writeHead(204).end();
    });
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(null)));
  const { port } = /** @type {import('node:net').AddressInfo} */ (server.address());
  return {
    url: `http://127.0.0.1:${port}/hook`,
    seen,
    close: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
