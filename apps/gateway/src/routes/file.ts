import { readFileSync, statSync } from 'node:fs';
import { YamlFile } from '@latchkey/runtime';
import type { z } from 'zod';
import { routesFileSchema } from './schema.js';
import { RouteTable } from './table.js';

export const ROUTES_FILE_BYTES_MAX = 1_048_576;

/** The routes file is invalid; each problem is `file:line: where: what`. */
export class RoutesFileError extends Error {
  override name = 'RoutesFileError';
  constructor(readonly problems: readonly string[]) {
    super(`the routes file is invalid:\n${problems.map((problem) => `  - ${problem}`).join('\n')}`);
  }
}

/** The text of the routes file. @throws RoutesFileError when it cannot be read */
export function readRoutes(file: string): string {
  try {
    if (statSync(file).size > ROUTES_FILE_BYTES_MAX)
      throw new RoutesFileError([`${file}: is larger than ${ROUTES_FILE_BYTES_MAX} bytes`]);
    return readFileSync(file, 'utf8');
  } catch (error) {
    if (error instanceof RoutesFileError) throw error;
    const reason = (error as NodeJS.ErrnoException).code ?? (error as Error).message;
    throw new RoutesFileError([`${file}: cannot be read (${reason}); GATEWAY_CONFIG names the routes file`]);
  }
}

/**
 * Validates the text of a routes file. `${NAME}` and `${NAME:-default}` in a text are replaced from the environment.
 * @param file its name, for messages
 * @throws RoutesFileError naming every problem with its line
 */
export function parseRoutes(text: string, file: string, env: NodeJS.ProcessEnv = {}): RouteTable {
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
  if (problems.length) throw new RoutesFileError(problems);
  return new RouteTable(routes);
}

type Path = readonly PropertyKey[];

function issueLines(issue: z.core.$ZodIssue, yaml: YamlFile): string[] {
  const where = (path: Path) =>
    path.map((part, i) => (typeof part === 'number' ? `[${part}]` : `${i ? '.' : ''}${String(part)}`)).join('') ||
    'the file';
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map((name) => {
      const path = [...issue.path, name];
      return `${yaml.placeOf(path)}: ${where(path)}: is not a known setting`;
    });
  }
  return [`${yaml.placeOf(issue.path)}: ${where(issue.path)}: ${issue.message}`];
}
