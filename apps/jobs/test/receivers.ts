import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { SMTPServer } from 'smtp-server';

/** A real mail server that stores what it receives. */
export interface Mailbox extends AsyncDisposable {
  readonly url: string;
  readonly received: { from: string; to: string[]; text: string }[];
  /** Status for the next recipients; undefined: 250. */
  rejectWith: number | undefined;
}

export async function mailbox(): Promise<Mailbox> {
  const received: Mailbox['received'] = [];
  const state = { rejectWith: undefined as number | undefined };
  const server = new SMTPServer({
    authOptional: true,
    disabledCommands: ['STARTTLS'],
    logger: false,
    onRcptTo(_address, _session, done) {
      if (!state.rejectWith) return done();
      done(Object.assign(new Error('rejected'), { responseCode: state.rejectWith }));
    },
    onData(stream, session, done) {
      const chunks: Buffer[] = [];
      stream.on('data', (chunk: Buffer) => chunks.push(chunk));
      stream.on('end', () => {
        const from = session.envelope.mailFrom;
        received.push({
          from: from ? from.address : '',
          to: session.envelope.rcptTo.map((r) => r.address),
          text: Buffer.concat(chunks).toString('utf8'),
        });
        done();
      });
    },
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.server.address() as AddressInfo;
  return {
    url: `smtp://127.0.0.1:${port}`,
    received,
    get rejectWith() {
      return state.rejectWith;
    },
    set rejectWith(code) {
      state.rejectWith = code;
    },
    [Symbol.asyncDispose]: () => new Promise<void>((resolve) => server.close(resolve)),
  };
}

export interface Webhook {
  id: string;
  timestamp: string;
  signature: string;
  body: string;
}

/** A real HTTP receiver of webhooks that stores what it receives. */
export interface Receiver extends AsyncDisposable {
  readonly url: string;
  readonly received: Webhook[];
  /** Status of the next responses: 204 by default. */
  status: number;
}

export async function receiver(): Promise<Receiver> {
  const received: Webhook[] = [];
  const state = { status: 204 };
  const server: Server = createServer((req, res) => {
    let body = '';
    req.setEncoding('utf8').on('data', (chunk: string) => {
      body += chunk;
    });
    req.on('end', () => {
      const header = (name: string) => String(req.headers[name]);
      received.push({
        id: header('webhook-id'),
        timestamp: header('webhook-timestamp'),
        signature: header('webhook-signature'),
        body,
      });
      res.writeHead(state.status).end();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}/hook`,
    received,
    get status() {
      return state.status;
    },
    set status(code) {
      state.status = code;
    },
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** In the format of Standard Webhooks. */
export const WEBHOOK_SECRET = `whsec_${Buffer.alloc(32, 7).toString('base64')}`;
