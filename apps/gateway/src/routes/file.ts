import { readFileSync, statSync } from 'node:fs';
import { isMap, isPair, isScalar, LineCounter, type Node, type ParsedNode, parseDocument, visit } from 'yaml';
import type { z } from 'zod';
import { routesFileSchema } from './schema.js';
import { RouteTable } from './table.js';

export const ROUTES_FILE_BYTES_MAX = 1_048_576;

/** The routes file is wrong; each problem is `file:line: where: what`. */
export class RoutesFileError extends Error {
  override name = 'RoutesFileError';
  constructor(readonly problems: readonly string[]) {
    super(`the routes file is wrong:\n${problems.map((problem) => `  - ${problem}`).join('\n')}`);
  }
}

/**
 * Reads and checks the routes file.
 * @throws RoutesFileError naming every problem with its line
 */
export function loadRoutes(file: string, env: NodeJS.ProcessEnv = process.env): RouteTable {
  let text: string;
  try {
    if (statSync(file).size > ROUTES_FILE_BYTES_MAX)
      throw new RoutesFileError([`${file}: is larger than ${ROUTES_FILE_BYTES_MAX} bytes`]);
    text = readFileSync(file, 'utf8');
  } catch (error) {
    if (error instanceof RoutesFileError) throw error;
    const reason = (error as NodeJS.ErrnoException).code ?? (error as Error).message;
    throw new RoutesFileError([`${file}: cannot be read (${reason}); GATEWAY_CONFIG names the routes file`]);
  }
  return parseRoutes(text, file, env);
}

/**
 * Checks the text of a routes file. `${NAME}` and `${NAME:-default}` in a text are replaced from the environment.
 * @param file its name, for messages
 * @throws RoutesFileError naming every problem with its line
 */
export function parseRoutes(text: string, file: string, env: NodeJS.ProcessEnv = {}): RouteTable {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false, uniqueKeys: true });
  const at = (offset: number | undefined) => `${file}:${lines.linePos(offset ?? 0).line}`;
  const problems = [...document.errors, ...document.warnings].map((e) => `${at(e.pos[0])}: ${e.message}`);

  visit(document, {
    Scalar(_key, node) {
      if (typeof node.value !== 'string' || !node.value.includes('${')) return;
      node.value = node.value.replace(
        /\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}/g,
        (_whole, name: string, fallback?: string) => {
          const value = env[name] || fallback;
          if (value === undefined)
            problems.push(`${at(node.range?.[0])}: \${${name}} is not set in the environment and has no default`);
          return value ?? '';
        },
      );
    },
  });
  if (problems.length) throw new RoutesFileError(problems);

  let content: unknown;
  try {
    content = document.toJS({ maxAliasCount: 100 });
  } catch (error) {
    throw new RoutesFileError([`${at(0)}: ${(error as Error).message}`]);
  }
  const result = routesFileSchema.safeParse(content);
  if (!result.success) {
    throw new RoutesFileError(result.error.issues.flatMap((issue) => issueLines(issue, document.contents, at)));
  }
  const { routes } = result.data;
  const nodeAt = (i: number, name: string) => at(rangeOf(document.contents, ['routes', i, name]));
  const seenNames = new Map<string, number>();
  const seenShapes = new Map<string, number>();
  routes.forEach((route, i) => {
    const shape = route.path.replace(/\{[^}]*\}/g, '{}');
    const [sameName, sameShape] = [seenNames.get(route.name), seenShapes.get(shape)];
    if (sameName !== undefined)
      problems.push(`${nodeAt(i, 'name')}: routes[${i}].name: "${route.name}" is taken by routes[${sameName}]`);
    if (sameShape !== undefined)
      problems.push(`${nodeAt(i, 'path')}: routes[${i}].path: matches the same requests as routes[${sameShape}]`);
    seenNames.set(route.name, i);
    seenShapes.set(shape, i);
  });
  if (problems.length) throw new RoutesFileError(problems);
  return new RouteTable(routes);
}

type Path = readonly PropertyKey[];

function issueLines(issue: z.core.$ZodIssue, root: ParsedNode | null, at: (offset?: number) => string): string[] {
  const where = (path: Path) =>
    path.map((part, i) => (typeof part === 'number' ? `[${part}]` : `${i ? '.' : ''}${String(part)}`)).join('') ||
    'the file';
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map((name) => {
      const path = [...issue.path, name];
      return `${at(rangeOf(root, path))}: ${where(path)}: is not a setting known here`;
    });
  }
  return [`${at(rangeOf(root, issue.path))}: ${where(issue.path)}: ${issue.message}`];
}

/** Where a value (or the nearest thing around it) begins: offset into the text. */
function rangeOf(root: ParsedNode | null, path: Path): number | undefined {
  let node: Node | null = root;
  let begins = root?.range?.[0];
  for (const part of path) {
    if (isMap(node)) {
      const pair = node.items.find(
        (item) => isPair(item) && isScalar(item.key) && String(item.key.value) === String(part),
      );
      if (!pair) return begins;
      begins = (pair.key as Node).range?.[0] ?? begins;
      node = pair.value as Node | null;
    } else if (node && 'items' in node && typeof part === 'number') {
      const item = (node as { items: Node[] }).items[part];
      if (!item) return begins;
      begins = item.range?.[0] ?? begins;
      node = item;
    } else return begins;
  }
  return begins;
}
