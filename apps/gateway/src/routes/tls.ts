import { createHash, createPrivateKey, X509Certificate } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import { createSecureContext, type SecureContext } from 'node:tls';

/** What a route says of TLS to its upstreams: names of PEM files, relative to the folder of the routes file. */
export interface TlsSpec {
  readonly ca?: string | undefined;
  readonly certificate?: string | undefined;
  readonly key?: string | undefined;
  readonly serverName?: string | undefined;
}

/** How connections to an upstream of https are made. */
export interface UpstreamTls {
  /** Undefined: the system's authorities, and no certificate of the own. */
  readonly context: SecureContext | undefined;
  /** Asked for (SNI), and checked against the certificate; undefined: the host of the upstream's address. */
  readonly serverName: string | undefined;
  /** Equal for equal contents of the files. */
  readonly digest: string;
}

/** Contents by absolute name, of all files that a routes file names. */
export type TlsFiles = Map<string, string>;

export const TLS_FILE_BYTES_MAX = 1_048_576;
const CERTIFICATE = /-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g;

/**
 * Reads the files of a route's `tls`.
 * @param folder of the routes file
 * @param files what they contain; those that are missing are read and added
 * @param problem called for each field whose file is missing or wrong; the result is of no use then
 */
export function readTls(
  spec: TlsSpec,
  folder: string,
  files: TlsFiles,
  problem: (field: keyof TlsSpec, message: string) => void,
): UpstreamTls {
  let isWrong = false;
  const wrong = (field: keyof TlsSpec, message: string) => {
    isWrong = true;
    problem(field, message);
  };
  const read = (field: 'ca' | 'certificate' | 'key', hasContent: (pem: string) => void): string | undefined => {
    const name = spec[field];
    if (name === undefined) return undefined;
    const file = path.resolve(folder, name);
    try {
      const pem = files.get(file) ?? contentOf(file);
      hasContent(pem);
      files.set(file, pem);
      return pem;
    } catch (error) {
      wrong(field, `${file} ${(error as Error).message}`);
      return undefined;
    }
  };
  const ca = read('ca', certificatesIn);
  const cert = read('certificate', certificatesIn);
  const key = read('key', keyIn);
  if (cert !== undefined && key !== undefined && !certificatesIn(cert)[0]!.checkPrivateKey(keyIn(key)))
    wrong('key', `${path.resolve(folder, spec.key!)} does not belong to the certificate ${spec.certificate}`);
  const { serverName } = spec;
  const digest = createHash('sha256')
    .update(JSON.stringify([ca, cert, key, serverName]))
    .digest('base64');
  if (isWrong || (ca === undefined && cert === undefined)) return { context: undefined, serverName, digest };
  try {
    return { context: createSecureContext({ ca, cert, key }), serverName, digest };
  } catch (error) {
    problem(cert === undefined ? 'ca' : 'certificate', `cannot be used: ${(error as Error).message}`);
    return { context: undefined, serverName, digest };
  }
}

function contentOf(file: string): string {
  try {
    if (statSync(file).size <= TLS_FILE_BYTES_MAX) return readFileSync(file, 'utf8');
  } catch (error) {
    throw new Error(`cannot be read (${(error as NodeJS.ErrnoException).code ?? (error as Error).message})`);
  }
  throw new Error(`is larger than ${TLS_FILE_BYTES_MAX} bytes`);
}

/** At least one; OpenSSL would ignore what is none. */
function certificatesIn(pem: string): X509Certificate[] {
  const blocks = pem.match(CERTIFICATE);
  if (!blocks) throw new Error('has no certificate in PEM');
  try {
    return blocks.map((block) => new X509Certificate(block));
  } catch (error) {
    throw new Error(`has a certificate that cannot be read (${(error as Error).message})`);
  }
}

function keyIn(pem: string) {
  try {
    return createPrivateKey(pem);
  } catch (error) {
    throw new Error(`has no private key in PEM without a passphrase (${(error as Error).message})`);
  }
}
