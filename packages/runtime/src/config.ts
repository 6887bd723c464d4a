import { readFileSync } from 'node:fs';
import { z } from 'zod';

/** One setting of a service: an environment variable with its meaning, default and check. */
export interface Setting<T = unknown> {
  /** Meaning and unit; shown in the generated configuration table. */
  description: string;
  /** As written in the environment; without one the setting is required unless the schema accepts undefined. */
  default?: string;
  /** Never printed; can be read from the file named by `<NAME>_FILE`. */
  secret?: boolean;
  schema: z.ZodType<T>;
}
export type Settings = Record<string, Setting>;
export type Config<S extends Settings> = { readonly [K in keyof S]: S[K] extends Setting<infer T> ? T : never };

/** Thrown at start, names every invalid setting; never contains the value of a secret. */
export class ConfigError extends Error {
  override name = 'ConfigError';
  constructor(readonly problems: readonly string[]) {
    super(`invalid configuration:\n${problems.map((p) => `  - ${p}`).join('\n')}`);
  }
}

/**
 * Reads the settings from the environment. For each `NAME`, `NAME_FILE` can name a file that contains the value instead
 * (one trailing line break is dropped), as container secrets do.
 * @throws ConfigError naming every setting that is missing or invalid
 */
export function loadConfig<S extends Settings>(settings: S, env: NodeJS.ProcessEnv = process.env): Config<S> {
  const values: Record<string, unknown> = {};
  const problems: string[] = [];
  for (const [name, setting] of Object.entries(settings)) {
    const read = readSetting(name, env);
    if (read.problem !== undefined) {
      problems.push(read.problem);
      continue;
    }
    const raw = read.value ?? setting.default;
    const result = setting.schema.safeParse(raw);
    if (result.success) values[name] = result.data;
    else if (raw === undefined) problems.push(`${name} is required: ${setting.description}`);
    else {
      const shown = setting.secret ? '' : ` (it is ${JSON.stringify(raw.slice(0, 80))})`;
      problems.push(`${name}: ${result.error.issues.map((i) => i.message).join('; ')}${shown}`);
    }
  }
  if (problems.length) throw new ConfigError(problems);
  return values as Config<S>;
}

/** The text of one setting, from the environment or from the file that `<NAME>_FILE` names. */
export function readSetting(name: string, env: NodeJS.ProcessEnv): { value?: string; problem?: string } {
  const value = env[name] || undefined;
  const file = env[`${name}_FILE`];
  if (!file) return value === undefined ? {} : { value };
  if (value !== undefined) return { problem: `${name} and ${name}_FILE are both set: remove one` };
  try {
    return { value: readFileSync(file, 'utf8').replace(/\r?\n$/, '') };
  } catch (error) {
    return { problem: `${name}_FILE: cannot read ${file} (${(error as NodeJS.ErrnoException).code})` };
  }
}

const integer = (min: number, max: number) => {
  const range = `must be a whole number from ${min} to ${max}`;
  return z.coerce.number(range).int(range).min(min, `must be at least ${min}`).max(max, `must be at most ${max}`);
};

/** Schemas shared by settings. */
export const settingSchema = {
  integer,
  port: integer(0, 65_535),
  url: (...protocols: string[]) =>
    z
      .string('is required')
      .refine(
        (s) => URL.canParse(s) && (protocols.length === 0 || protocols.includes(new URL(s).protocol)),
        `must be a URL${protocols.length ? ` that begins with ${protocols.map((p) => `${p}//`).join(' or ')}` : ''}`,
      ),
  /** At least 32 characters. */
  secret: z.string('is required').min(32, 'must have at least 32 characters').max(1_000),
  /** Comma-separated secrets, the current one first: 1 to 8, each at least 32 characters, no duplicates. */
  secretList: z
    .string('is required')
    .transform((text) => text.split(',').map((part) => part.trim()))
    .refine(
      (list) => list.every((secret) => secret.length >= 32 && secret.length <= 1_000),
      'each secret must have at least 32 characters (and at most 1000)',
    )
    .refine((list) => new Set(list).size === list.length, 'must not contain a secret twice')
    .refine((list) => list.length <= 8, 'must be at most 8 secrets')
    .transform((list) => list as [string, ...string[]]),
  /** `host:port`, or several separated by commas. */
  rpcAddress: z
    .string()
    .refine(
      (text) => text.split(',').every((part) => /^([^\s/:,[\]]+|\[[0-9a-fA-F:.]+\]):\d{1,5}$/.test(part.trim())),
      'must be host:port, or several separated by commas',
    ),
  /** Comma-separated, empty parts dropped. */
  list: z.string().transform((s) =>
    s
      .split(',')
      .map((p) => p.trim())
      .filter(Boolean),
  ),
  logLevel: z.enum(
    ['trace', 'debug', 'info', 'warn', 'error', 'fatal'],
    'must be one of trace, debug, info, warn, error, fatal',
  ),
  boolean: z.enum(['true', 'false'], 'must be true or false').transform((s) => s === 'true'),
};

/** Settings that every service reads. */
export const commonSettings = {
  LOG_LEVEL: {
    description: 'Minimum log level: trace, debug, info, warn, error or fatal',
    default: 'info',
    schema: settingSchema.logLevel,
  },
  HOST: { description: 'Address that the service listens on', default: '127.0.0.1', schema: z.string() },
} satisfies Settings;
