/**
 * A peer of the forward-auth benchmark: @grpc/grpc-js that answers each of Envoy's checks with the message that the gateway
 * sends for an allowed request. Prints its port.
 */
import { Server, ServerCredentials } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { EXT_AUTHZ_PACKAGE, EXT_AUTHZ_PROTO_FILE, IDENTITY_HEADERS, REQUEST_ID_HEADER } from '@latchkey/contracts';
import { newId, PROTO_OPTIONS } from '@latchkey/runtime';

const headers = {
  [IDENTITY_HEADERS.tokenId]: newId(),
  [IDENTITY_HEADERS.owner]: `user:${newId()}`,
  [IDENTITY_HEADERS.project]: '',
  [IDENTITY_HEADERS.scopes]: 'demo:read',
  [REQUEST_ID_HEADER]: newId(),
};
const answer = () => ({
  status: { code: 0, message: '' },
  okResponse: {
    headers: Object.entries(headers).map(([key, value]) => ({
      header: { key, value, rawValue: Buffer.alloc(0) },
      appendAction: 'OVERWRITE_IF_EXISTS_OR_ADD',
      keepEmptyValue: true,
    })),
    headersToRemove: ['authorization'],
    responseHeadersToAdd: [],
  },
});

const server = new Server();
server.addService(loadSync(EXT_AUTHZ_PROTO_FILE, PROTO_OPTIONS)[`${EXT_AUTHZ_PACKAGE}.Authorization`], {
  Check: (_call, done) => done(null, answer()),
});
server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, port) => {
  if (error) throw error;
  console.log(`port ${port}`);
});
