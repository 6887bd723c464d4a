import { fileURLToPath } from 'node:url';

/** Where `latchkey.proto` stands, for gRPC servers, callers and reflection. */
export const PROTO_FILE = fileURLToPath(new URL('../proto/latchkey.proto', import.meta.url));
export const PROTO_PACKAGE = 'latchkey.v1';

/** Scheme of the `authorization` metadata by which first-party services present RPC_SECRET. */
export const FIRST_PARTY_SCHEME = 'Latchkey';
