import { hash } from 'node:crypto';
import { isOneOfSecrets } from '@latchkey/contracts';
import { z } from 'zod';
import { ConfigError, readSetting, type Settings, settingSchema } from './config.js';
import { decryptionKey, encryptionKey } from './encryption.js';

/** What services show each other: each opens one thing. Lists: callers send the first, the token-service takes all. */
export const credentialSettings = {
  GATEWAY_RPC_SECRET: {
    description:
      "Comma-separated, each at least 32 characters: by which gateways show themselves on the token-service's gRPC endpoint for checks and leases. Callers send the first",
    secret: true,
    schema: settingSchema.secretList,
  },
  JOBS_RPC_SECRET: {
    description:
      "Comma-separated, each at least 32 characters: by which jobs shows itself on the token-service's gRPC endpoint for maintenance. Callers send the first",
    secret: true,
    schema: settingSchema.secretList,
  },
  GATEWAY_PROOF_SECRET: {
    description:
      'Comma-separated, each at least 32 characters: proves to the token-service that a request of the management API came through a gateway. Gateways use the first',
    secret: true,
    schema: settingSchema.secretList,
  },
} satisfies Settings;
export type CredentialName = keyof typeof credentialSettings;

/** One secret where there are three now; read for one version more. */
export const rpcSecretSetting = {
  RPC_SECRET: {
    description:
      'Deprecated, and not read from the next version on: stands for whichever of GATEWAY_RPC_SECRET, JOBS_RPC_SECRET and GATEWAY_PROOF_SECRET is missing',
    secret: true,
    schema: settingSchema.secret.optional(),
  },
} satisfies Settings;

/** The keys by which codes in password emails reach jobs and nobody else. */
export const encryptionSettings = {
  JOBS_SEALING_KEY: {
    description:
      'Comma-separated, each at least 32 characters: from which the keys are derived that decrypt the codes in password emails. Held by jobs alone; without it none of these emails are sent',
    secret: true,
    schema: settingSchema.secretList.transform((secrets) => secrets.map(decryptionKey)).optional(),
  },
  JOBS_SEALING_PUBLIC_KEY: {
    description:
      'Public half of the first key of JOBS_SEALING_KEY, as `node apps/jobs/dist/public-key.js` prints it; without it no code leaves for an email',
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
 * The environment with RPC_SECRET in place of each of these credentials that is not set.
 * @returns also what it stands for, and what to say about it at start
 * @throws ConfigError where RPC_SECRET cannot stand for them
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

/** Tells whether a presented text is one of some secrets, in a time that tells nothing about them. */
export function secretMatcher(secrets: readonly string[]): (presented: string) => boolean {
  const digest = (text: string) => hash('sha256', text, 'base64url');
  const known = secrets.map(digest);
  return (presented) => isOneOfSecrets(known, digest(presented));
}
