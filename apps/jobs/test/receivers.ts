import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { SMTPServer } from 'smtp-server';

/** A real mail server that keeps what it is handed. */
export interface Mailbox extends AsyncDisposable {
  readonly url: string;
  readonly letters: { from: string; to: string[]; text: string }[];
  /** What the next recipients are answered: 250 by default. */
  refuseWith: number | undefined;
}

export async function mailbox(): Promise<Mailbox> {
  const letters: Mailbox['letters'] = [];
  const state = { refuseWith: undefined as number | undefined };
  const server = new SMTPServer({
    authOptional: true,
    disabledCommands: ['STARTTLS'],
    logger: false,
    onRcptTo(_address, _session, done) {
      if (!state.refuseWith) return done();
      done(Object.assign(new Error('refused'), { responseCode: state.refuseWith }));
    },
    onData(stream, session, done) {
      const chunks: Buffer[] = [];
      stream.on('data', (chunk: Buffer) => chunks.push(chunk));
      stream.on('end', () => {
        const from = session.envelope.mailFrom;
        letters.push({
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
    letters,
    get refuseWith() {
      return state.refuseWith;
    },
    set refuseWith(code) {
      state.refuseWith = code;
    },
    [Symbol.asyncDispose]: () => new Promise<void>((resolve) => server.close(resolve)),
  };
}

export interface Posted {
  id: string;
  timestamp: string;
  signature: string;
  body: string;
}

/** A real HTTP receiver of webhooks that keeps what it is sent. */
export interface Receiver extends AsyncDisposable {
  readonly url: string;
  readonly posted: Posted[];
  /** What it answers: 204 by default. */
  status: number;
}

export async function receiver(): Promise<Receiver> {
  const posted: Posted[] = [];
  const state = { status: 204 };
  const server: Server = createServer((req, res) => {
    let body = '';
    req.setEncoding('utf8').on('data', (chunk: string) => {
      body += chunk;
    });
    req.on('end', () => {
      const header = (name: string) => String(req.headers[name]);
      posted.push({
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
    posted,
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

/** As Standard Webhooks writes secrets. */
export const WEBHOOK_SECRET = `whsec_${Buffer.alloc(32, 7).toString('base64')}`;
