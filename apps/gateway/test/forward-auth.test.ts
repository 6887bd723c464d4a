import { waitFor } from '@latchkey/testing';
import type { Checks } from '../src/check/index.js';
import { Delegated, ForwardAuth, Peers } from '../src/handlers/index.js';
import type { RouteTable } from '../src/routes/index.js';
import { CallerSocket } from './caller-socket.js';

it('a check that fails is 500, and the connection serves the next request', async () => {
  const checks = { decideAll: () => Promise.reject(new Error('failed')) } as unknown as Checks;
  const routes = { match: () => undefined } as unknown as RouteTable;
  const forwardAuth = new ForwardAuth(checks, new Delegated(checks, () => routes), new Peers([], []));
  const socket = new CallerSocket((request) => forwardAuth.handle(request, ''));
  for (let i = 1; i <= 2; i++) {
    socket.receive('GET /forward-auth HTTP/1.1\r\nHost: g\r\n\r\n');
    await waitFor(() => socket.written.match(/HTTP\/1\.1 500 /g)?.length === i);
  }
});
