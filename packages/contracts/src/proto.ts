import { fileURLToPath } from 'node:url';

/** Where `latchkey.proto` stands, for gRPC servers, callers and reflection: what other programs may call. */
export const PROTO_FILE = fileURLToPath(new URL('../proto/latchkey.proto', import.meta.url));
export const PROTO_PACKAGE = 'latchkey.v1';

/** Calls between Latchkey's own services; they may change with any version. */
export const INTERNAL_PROTO_FILE = fileURLToPath(new URL('../proto/latchkey_internal.proto', import.meta.url));
export const INTERNAL_PROTO_PACKAGE = 'latchkey.internal.v1';

/** Where the gateway's part of Envoy's external authorization stands. */
export const EXT_AUTHZ_PROTO_FILE = fileURLToPath(new URL('../proto/ext_authz.proto', import.meta.url));
export const EXT_AUTHZ_PACKAGE = 'envoy.service.auth.v3';

/** Scheme of the `authorization` metadata by which Latchkey's own services present their secret. */
export const FIRST_PARTY_SCHEME = 'Latchkey';
