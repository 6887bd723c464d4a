import { createHash } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import { YamlFile } from '@latchkey/runtime';
import type { z } from 'zod';
import { routesFileSchema } from './schema.js';
import { Route, RouteTable } from './table.js';
import { readTls, type TlsFiles } from './tls.js';

export const ROUTES_FILE_BYTES_MAX = 1_048_576;
const HASH_LENGTH = 16;

/** The routes file is invalid; each problem is `file:line: where: what`. */
export class RoutesFileError extends Error {
  override name = 'RoutesFileError';
  constructor(readonly problems: readonly string[]) {
    super(`the routes file is invalid:\n${problems.map((problem) => `  - ${problem}`).join('\n')}`);
  }
}

/** A routes file, and the contents of the files that it names, so that all processes use the same. */
export interface RoutesSource {
  readonly text: string;
  /** What is missing is read, and added, by `parseRoutes`. */
  readonly files: TlsFiles;
}

/** Reads the routes file. @throws RoutesFileError when it cannot be read */
export function readRoutes(file: string): RoutesSource {
  try {
    if (statSync(file).size > ROUTES_FILE_BYTES_MAX)
      throw new RoutesFileError([`${file}: is larger than ${ROUTES_FILE_BYTES_MAX} bytes`]);
    return { text: readFileSync(file, 'utf8'), files: new Map() };
  } catch (error) {
    if (error instanceof RoutesFileError) throw error;
    const reason = (error as NodeJS.ErrnoException).code ?? (error as Error).message;
    throw new RoutesFileError([`${file}: cannot be read (${reason}); GATEWAY_CONFIG names the routes file`]);
  }
}

/**
 * Validates the text of a routes file. `${NAME}` and `${NAME:-default}` in a text are replaced from the environment.
 * @param file its name, for messages; files that it names are relative to its folder
 * @param files their contents; those that are missing are read and added
 * @throws RoutesFileError naming every problem with its line
 */
export function parseRoutes(
  text: string,
  file: string,
  env: NodeJS.ProcessEnv = {},
  files: TlsFiles = new Map(),
): RouteTable {
  const yaml = new YamlFile(file, text);
  const problems = [...yaml.errors, ...yaml.warnings];
  yaml.replaceTexts((value, place) =>
    value.replace(/\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}/g, (_whole, name: string, fallback?: string) => {
      const found = env[name] || fallback;
      if (found === undefined) problems.push(`${place}: \${${name}} is not set in the environment and has no default`);
      return found ?? '';
    }),
  );
  if (problems.length) throw new RoutesFileError(problems);

  let content: unknown;
  try {
    content = yaml.content();
  } catch (error) {
    throw new RoutesFileError([`${file}:1: ${(error as Error).message}`]);
  }
  const result = routesFileSchema.safeParse(content);
  if (!result.success) throw new RoutesFileError(result.error.issues.flatMap((issue) => issueLines(issue, yaml)));
  const { routes } = result.data;
  const placeOf = (i: number, name: string) => yaml.placeOf(['routes', i, name]);
  const seenNames = new Map<string, number>();
  const seenShapes = new Map<string, number>();
  routes.forEach((route, i) => {
    const shape = route.path.replace(/\{[^}]*\}/g, '{}');
    const [sameName, sameShape] = [seenNames.get(route.name), seenShapes.get(shape)];
    if (sameName !== undefined)
      problems.push(
        `${placeOf(i, 'name')}: routes[${i}].name: "${route.name}" is already the name of routes[${sameName}]`,
      );
    if (sameShape !== undefined)
      problems.push(`${placeOf(i, 'path')}: routes[${i}].path: matches the same requests as routes[${sameShape}]`);
    seenNames.set(route.name, i);
    seenShapes.set(shape, i);
  });
  const tls = routes.map(
    (route, i) =>
      route.tls &&
      readTls(route.tls, path.dirname(file), files, (field, message) => {
        const where = `${yaml.placeOf(['routes', i, 'tls', field])}: routes[${i}].tls.${field}`;
        problems.push(`${where}: of the route "${route.name}": ${message}`);
      }),
  );
  if (problems.length) throw new RoutesFileError(problems);
  return new RouteTable(
    routes.map((spec, i) => new Route(spec, tls[i])),
    hashOf(text, files),
  );
}

/** As of `cat gateway.yaml ca.pem … | sha256sum`: the routes file, then each file in the order in which routes name them. */
function hashOf(text: string, files: TlsFiles): string {
  const hash = createHash('sha256').update(text);
  for (const content of files.values()) hash.update(content);
  return hash.digest('hex').slice(0, HASH_LENGTH);
}

type Path = readonly PropertyKey[];

function issueLines(issue: z.core.$ZodIssue, yaml: YamlFile): string[] {
  const where = (at: Path) =>
    at.map((part, i) => (typeof part === 'number' ? `[${part}]` : `${i ? '.' : ''}${String(part)}`)).join('') ||
    'the file';
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map((name) => {
      const at = [...issue.path, name];
      return `${yaml.placeOf(at)}: ${where(at)}: is not a known setting`;
    });
  }
  return [`${yaml.placeOf(issue.path)}: ${where(issue.path)}: ${issue.message}`];
}
