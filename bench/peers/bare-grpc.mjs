/**
 * A peer of the forward-auth benchmark: @grpc/grpc-js that answers every call with the same message.
 * `node bare-grpc.mjs <proto file> <service> <method> <message in base64>`; prints its port.
 */
import { Server, ServerCredentials } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { PROTO_OPTIONS } from '@latchkey/runtime';

const [file, service, method, message] = process.argv.slice(2);
const definition = loadSync(file, PROTO_OPTIONS)[service];
const answer = definition[method].responseDeserialize(Buffer.from(message, 'base64'));
const unused = Object.keys(definition).filter((name) => name !== method);
const server = new Server();
server.addService(definition, {
  ...Object.fromEntries(unused.map((name) => [name, (_call, done) => done?.(new Error('not offered'))])),
  [method]: (_call, done) => done(null, answer),
});
server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, port) => {
  if (error) throw error;
  console.log(`port ${port}`);
});
