import { hash } from 'node:crypto';
import { isOneOfSecrets } from '@latchkey/contracts';
import { z } from 'zod';
import { ConfigError, readSetting, type Settings, settingSchema } from './config.js';
import { decryptionKey, encryptionKey } from './encryption.js';
import type { Logger } from './logger.js';

/** Credentials between services, each for one use. Lists: callers send the first, the token-service accepts all. */
export const credentialSettings = {
  GATEWAY_RPC_SECRET: {
    description:
      "Comma-separated, each at least 32 characters: authenticates gateways at the token-service's gRPC endpoint for checks and leases. Gateways send the first",
    secret: true,
    schema: settingSchema.secretList,
  },
  JOBS_RPC_SECRET: {
    description:
      "Comma-separated, each at least 32 characters: authenticates jobs at the token-service's gRPC endpoint for maintenance. Jobs sends the first",
    secret: true,
    schema: settingSchema.secretList,
  },
  GATEWAY_PROOF_SECRET: {
    description:
      'Comma-separated, each at least 32 characters: proves to the token-service that a request to the management API came through a gateway. Gateways use the first',
    secret: true,
    schema: settingSchema.secretList,
  },
} satisfies Settings;
export type CredentialName = keyof typeof credentialSettings;

/** The predecessor of these three; supported for one more version. */
export const rpcSecretSetting = {
  RPC_SECRET: {
    description:
      'Deprecated, not read from the next version on: the value of each of GATEWAY_RPC_SECRET, JOBS_RPC_SECRET and GATEWAY_PROOF_SECRET that is missing',
    secret: true,
    schema: settingSchema.secret.optional(),
  },
} satisfies Settings;

/** The keys with which codes in password emails are encrypted to jobs. */
export const encryptionSettings = {
  JOBS_SEALING_KEY: {
    description:
      'Comma-separated, each at least 32 characters: the keys that decrypt the codes in password emails are derived from them. For jobs only; without it these emails are not sent',
    secret: true,
    schema: settingSchema.secretList.transform((secrets) => secrets.map(decryptionKey)).optional(),
  },
  JOBS_SEALING_PUBLIC_KEY: {
    description:
      'Public half of the first key of JOBS_SEALING_KEY, printed by `node apps/jobs/dist/public-key.js`; without it no password emails are sent',
    schema: z
      .string()
      .transform((text, context) => {
        try {
          return encryptionKey(text.trim());
        } catch {
          context.addIssue('must be an X25519 public key in base64url, 43 characters, as jobs prints it');
          return z.NEVER;
        }
      })
      .optional(),
  },
} satisfies Settings;

/**
 * The environment with RPC_SECRET as the value of each of these credentials that is not set.
 * @returns also the names of those, and warnings to log at start
 * @throws ConfigError when RPC_SECRET cannot be their value
 */
export function adoptRpcSecret(
  env: NodeJS.ProcessEnv,
  names: readonly CredentialName[],
): { env: NodeJS.ProcessEnv; adopted: CredentialName[]; warnings: string[] } {
  const given = readSetting('RPC_SECRET', env);
  if (given.problem !== undefined) throw new ConfigError([given.problem]);
  if (given.value === undefined) return { env, adopted: [], warnings: [] };
  const missing = names.filter((name) => !env[name] && !env[`${name}_FILE`]);
  if (missing.length === 0)
    return { env, adopted: [], warnings: [`RPC_SECRET is no longer used: ${names.join(', ')} are set; remove it`] };
  if (given.value.includes(','))
    throw new ConfigError([`RPC_SECRET holds a comma and cannot stand for ${missing.join(', ')}: set these instead`]);
  return {
    env: { ...env, ...Object.fromEntries(missing.map((name) => [name, given.value])) },
    adopted: missing,
    warnings: [
      `RPC_SECRET is deprecated and stands for ${missing.join(', ')} in this version only: set these instead (UPGRADE.md)`,
    ],
  };
}

/** Compares a presented text with some secrets, in constant time. */
export function secretMatcher(secrets: readonly string[]): (presented: string) => boolean {
  const digest = (text: string) => hash('sha256', text, 'base64url');
  const known = secrets.map(digest);
  return (presented) => isOneOfSecrets(known, digest(presented));
}

/** A matcher for a list that can change: made anew when there is another one. */
export function liveMatcher(
  list: () => readonly string[],
  matcherOf: (list: readonly string[]) => (presented: string) => boolean = secretMatcher,
): (presented: string) => boolean {
  let known = list();
  let matches = matcherOf(known);
  return (presented) => {
    const now = list();
    if (now !== known) [known, matches] = [now, matcherOf(now)];
    return matches(presented);
  };
}

/** Whether the token-service accepts a credential of this service. Logged once, and again only after it was accepted. */
export class CredentialState {
  #isRefused = false;
  readonly #reason: string;

  constructor(
    name: CredentialName,
    private readonly logger: Pick<Logger, 'info' | 'error'>,
  ) {
    this.#reason = `the token-service does not accept ${name}: set the same value there, or list this one there as well`;
  }

  /** Why it is refused; undefined: it is accepted, or has not been presented yet. */
  get fault(): string | undefined {
    return this.#isRefused ? this.#reason : undefined;
  }

  /** Of a response to a call. */
  note(isAccepted: boolean): void {
    if (isAccepted !== this.#isRefused) return;
    this.#isRefused = !isAccepted;
    if (this.#isRefused) this.logger.error(this.#reason);
    else this.logger.info('the token-service accepts the credential again');
  }

  /** For `/readyz`. @throws Error with the reason */
  async mustBeAccepted(): Promise<void> {
    if (this.#isRefused) throw new Error(this.#reason);
  }
}
