import { createPrivateKey, X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { createSecureContext } from 'node:tls';
import type { Logger } from '@latchkey/runtime';
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

/** How often the files are read. */
export const POLL_MS = 2_000;

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
 * Reads the files again every {@link POLL_MS}, so that every way to replace them is noticed. A pair is taken once it has been the
 * same twice, as files are written one after the other; one that cannot be used leaves the previous one in use.
 */
export class CertificateWatch {
  /** Why the files cannot be used, or the certificate in use has expired; undefined when all is well. */
  fault: string | undefined;
  #seen = '';
  #timer: NodeJS.Timeout | undefined;
  #isStopped = false;

  constructor(
    private current: Certificate,
    private readonly deps: CertificateWatchDeps,
  ) {}

  get #nowMs(): number {
    return (this.deps.wallMs ?? Date.now)();
  }

  /** Until the certificate in use expires; negative when it has. */
  get secondsLeft(): number {
    return Math.floor((this.current.expiresAtMs - this.#nowMs) / 1000);
  }

  start(): void {
    this.#timer = setTimeout(() => {
      void this.check().finally(() => {
        if (!this.#isStopped) this.start();
      });
    }, POLL_MS);
    this.#timer.unref();
  }

  stop(): void {
    this.#isStopped = true;
    clearTimeout(this.#timer);
  }

  /** Reads the files; what is new in them is used, or reported, at the second time. */
  async check(): Promise<void> {
    const { files } = this.deps;
    let pair: TlsCredentials | undefined;
    let error: unknown;
    const read = (name: string, file: string) =>
      readFile(file, 'utf8').catch((cause: unknown) => {
        throw unreadable(name, file, cause);
      });
    try {
      const cert = await read('TLS_CERTIFICATE_FILE', files.certificate);
      pair = { cert, key: await read('TLS_KEY_FILE', files.key) };
    } catch (cause) {
      error = cause;
    }
    const seen = pair ? `${pair.cert}\0${pair.key}` : (error as Error).message;
    const isStable = seen === this.#seen;
    this.#seen = seen;
    if (!isStable) return;
    try {
      if (!pair) throw error;
      const certificate = inspect(pair, files, this.#nowMs);
      const { names } = this.current;
      if (!certificate.names.some((name) => names.includes(name)))
        throw new CertificateError(
          `TLS_CERTIFICATE_FILE: ${files.certificate} is for ${certificate.names.join(', ')}, and the one in use for ${names.join(', ')}; write that of this host, or start the gateway again if it has another name now`,
        );
      if (pair.cert !== this.current.cert || pair.key !== this.current.key) this.#take(certificate);
      else if (this.fault !== undefined) this.#log('info', {}, 'the TLS certificate in use is valid again');
      this.fault = undefined;
    } catch (cause) {
      const { message } = cause as Error;
      if (message === this.fault) return;
      this.fault = message;
      const fields = { reason: message, secondsLeft: this.secondsLeft };
      this.#log('error', fields, 'reloading the TLS certificate failed; the previous one stays in use');
    }
  }

  #take(certificate: Certificate): void {
    this.deps.use(certificate);
    this.current = certificate;
    const expiresAt = new Date(certificate.expiresAtMs).toISOString();
    this.#log('info', { expiresAt }, 'TLS certificate reloaded');
  }

  #log(level: 'info' | 'error', fields: object, message: string): void {
    this.deps.logger[this.deps.logs ? level : 'debug'](fields, message);
  }
}
