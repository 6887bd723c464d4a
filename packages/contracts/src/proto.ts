import { fileURLToPath } from 'node:url';

/** Path of `latchkey.proto`, the public API, for gRPC servers, clients and reflection. */
export const PROTO_FILE = fileURLToPath(new URL('../proto/latchkey.proto', import.meta.url));
export const PROTO_PACKAGE = 'latchkey.v1';

/** Calls between Latchkey's own services; they can change with any version. */
export const INTERNAL_PROTO_FILE = fileURLToPath(new URL('../proto/latchkey_internal.proto', import.meta.url));
export const INTERNAL_PROTO_PACKAGE = 'latchkey.internal.v1';

/** Path of the part of Envoy's external authorization that the gateway implements. */
export const EXT_AUTHZ_PROTO_FILE = fileURLToPath(new URL('../proto/ext_authz.proto', import.meta.url));
export const EXT_AUTHZ_PACKAGE = 'envoy.service.auth.v3';

/** Scheme of the `authorization` metadata with the secret of Latchkey's own services. */
export const FIRST_PARTY_SCHEME = 'Latchkey';
