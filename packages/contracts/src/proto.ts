import { fileURLToPath } from 'node:url';

/** Where `latchkey.proto` stands, for gRPC servers, callers and reflection. */
export const PROTO_FILE = fileURLToPath(new URL('../proto/latchkey.proto', import.meta.url));
export const PROTO_PACKAGE = 'latchkey.v1';

/** Where the gateway's part of Envoy's external authorization stands. */
export const EXT_AUTHZ_PROTO_FILE = fileURLToPath(new URL('../proto/ext_authz.proto', import.meta.url));
export const EXT_AUTHZ_PACKAGE = 'envoy.service.auth.v3';

/** Scheme of the `authorization` metadata by which first-party services present RPC_SECRET. */
export const FIRST_PARTY_SCHEME = 'Latchkey';
