import { createPrivateKey, X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { createSecureContext } from 'node:tls';
import { FileWatch, type Logger } from '@latchkey/runtime';
import type { TlsCredentials } from './engine/index.js';

/** The files of `TLS_CERTIFICATE_FILE` and `TLS_KEY_FILE`. */
export interface CertificateFiles {
  readonly certificate: string;
  readonly key: string;
}

export interface Certificate extends TlsCredentials {
  readonly expiresAtMs: number;
  /** Of the hosts that it is for, as it writes them. */
  readonly names: readonly string[];
}

/** Why a pair of files cannot be used: what is wrong, and what to do. */
export class CertificateError extends Error {
  override name = 'CertificateError';
}

const PEM = /-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g;

/**
 * @param acceptsExpired others serve with it already: a process more is better than none
 * @throws CertificateError
 */
export function readCertificate(files: CertificateFiles, nowMs: number, acceptsExpired = false): Certificate {
  const read = (name: string, file: string) => {
    try {
      return readFileSync(file, 'utf8');
    } catch (error) {
      throw unreadable(name, file, error);
    }
  };
  const pair = { cert: read('TLS_CERTIFICATE_FILE', files.certificate), key: read('TLS_KEY_FILE', files.key) };
  return inspect(pair, files, nowMs, acceptsExpired);
}

const unreadable = (name: string, file: string, error: unknown) =>
  new CertificateError(
    `${name}: ${file} cannot be read (${(error as NodeJS.ErrnoException).code}); is its path right, and can the gateway's user read it?`,
  );

function inspect(pair: TlsCredentials, files: CertificateFiles, nowMs: number, acceptsExpired = false): Certificate {
  const { cert, key } = pair;
  const invalid = (detail: string) => new CertificateError(`TLS_CERTIFICATE_FILE: ${files.certificate} ${detail}`);
  const blocks = cert.match(PEM) ?? [];
  if (blocks.length === 0 || blocks.length !== cert.split('-----BEGIN').length - 1)
    throw invalid(
      'is not a PEM file of certificates, or only a part of one; write the whole chain, that of this host first',
    );
  const [own] = blocks.map((block) => {
    try {
      return new X509Certificate(block);
    } catch {
      throw invalid('contains a certificate that cannot be parsed; write it again');
    }
  });
  let privateKey: ReturnType<typeof createPrivateKey>;
  try {
    privateKey = createPrivateKey(key);
  } catch {
    throw new CertificateError(
      `TLS_KEY_FILE: ${files.key} is not a private key in PEM, or has a passphrase; write the key without one`,
    );
  }
  if (!own!.checkPrivateKey(privateKey))
    throw new CertificateError(
      `TLS_KEY_FILE: ${files.key} is not the key of the first certificate in ${files.certificate}; write both from the same issue`,
    );
  const expiresAtMs = Date.parse(own!.validTo);
  if (Date.parse(own!.validFrom) > nowMs)
    throw invalid(`is valid only from ${own!.validFrom}; check this machine's clock, or wait`);
  if (expiresAtMs <= nowMs && !acceptsExpired) throw invalid(`has expired at ${own!.validTo}; renew it`);
  try {
    createSecureContext(pair);
  } catch (error) {
    throw invalid(`cannot be used: ${(error as Error).message}`);
  }
  return { ...pair, expiresAtMs, names: (own!.subjectAltName ?? own!.subject).split(/, |\n/) };
}

export interface CertificateWatchDeps {
  readonly files: CertificateFiles;
  /** Takes a new pair. */
  readonly use: (credentials: TlsCredentials) => void;
  readonly logger: Pick<Logger, 'info' | 'error' | 'debug'>;
  /** Whether it logs what other processes log as well. */
  readonly logs: boolean;
  /** Default: the system's. */
  readonly wallMs?: () => number;
}

/**
 * Uses what the files hold, as {@link FileWatch} does, as long as it is valid; what cannot be used leaves the previous pair in
 * use, and so does one that shares no name with that.
 */
export class CertificateWatch {
  readonly #watch: FileWatch<Certificate>;

  constructor(
    private current: Certificate,
    private readonly deps: CertificateWatchDeps,
  ) {
    this.#watch = new FileWatch<Certificate>(keyOf(current), {
      read: async () => {
        const content = await this.#read();
        return { key: keyOf(content), content };
      },
      use: (certificate) => {
        deps.use(certificate);
        this.current = certificate;
        const expiresAt = new Date(certificate.expiresAtMs).toISOString();
        this.#log('info', { expiresAt }, 'TLS certificate reloaded');
      },
      onFault: ({ message: reason }) => {
        const fields = { reason, secondsLeft: this.secondsLeft };
        this.#log('error', fields, 'reloading the TLS certificate failed; the previous one stays in use');
      },
      onUnchanged: () => this.#log('info', {}, 'the TLS certificate in use is valid again'),
    });
  }

  /** Why the files cannot be used, or the certificate in use has expired; undefined when all is well. */
  get fault(): string | undefined {
    return this.#watch.fault;
  }

  get #nowMs(): number {
    return (this.deps.wallMs ?? Date.now)();
  }

  /** Until the certificate in use expires; negative when it has. */
  get secondsLeft(): number {
    return Math.floor((this.current.expiresAtMs - this.#nowMs) / 1000);
  }

  start(): void {
    this.#watch.start();
  }

  stop(): void {
    this.#watch.stop();
  }

  /** Reads the files; what is new in them is used, or reported, at the second time. */
  check(): Promise<void> {
    return this.#watch.check();
  }

  async #read(): Promise<Certificate> {
    const { files } = this.deps;
    const read = (name: string, file: string) =>
      readFile(file, 'utf8').catch((cause: unknown) => {
        throw unreadable(name, file, cause);
      });
    const cert = await read('TLS_CERTIFICATE_FILE', files.certificate);
    const key = await read('TLS_KEY_FILE', files.key);
    const certificate = inspect({ cert, key }, files, this.#nowMs);
    const { names } = this.current;
    if (!certificate.names.some((name) => names.includes(name)))
      throw new CertificateError(
        `TLS_CERTIFICATE_FILE: ${files.certificate} is for ${certificate.names.join(', ')}, and the one in use for ${names.join(', ')}; write that of this host, or start the gateway again if it has another name now`,
      );
    return certificate;
  }

  #log(level: 'info' | 'error', fields: object, message: string): void {
    this.deps.logger[this.deps.logs ? level : 'debug'](fields, message);
  }
}

const keyOf = ({ cert, key }: TlsCredentials): string => `${cert}\0${key}`;
