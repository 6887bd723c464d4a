import { hash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import {
  MANAGEMENT_SCOPES,
  type PersonRole,
  PROJECT_ROLES,
  type ProjectRole,
  projectRoleSchema,
  type ScopeDeclaration,
  scopeSchema,
} from '@latchkey/contracts';
import { ConfigError, YamlFile } from '@latchkey/runtime';
import { Inject, Injectable } from '@nestjs/common';
import { z } from 'zod';
import { CONFIG, type TokenServiceConfig } from '../config.js';
import { Database } from '../database/index.js';

const fileSchema = z.strictObject({
  scopes: z
    .array(
      z.strictObject({
        name: scopeSchema,
        description: z.string().min(1).max(500),
        projectRoles: z.array(projectRoleSchema).default([]),
        members: z.boolean().default(false),
      }),
    )
    .max(1_000),
});

/** A scopes file: its text, and what it declares. */
export interface ScopesFile {
  readonly text: string;
  readonly scopes: readonly ScopeDeclaration[];
}

/**
 * Reads the operator's scopes file.
 * @throws ConfigError naming file, line and reason
 */
export function readScopesFile(file: string): ScopesFile {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    throw new ConfigError([`SCOPES_FILE: cannot read ${file} (${(error as NodeJS.ErrnoException).code})`]);
  }
  const yaml = new YamlFile(file, text);
  if (yaml.errors.length) throw new ConfigError(yaml.errors);
  const result = fileSchema.safeParse(contentOf(yaml));
  if (!result.success)
    throw new ConfigError(
      result.error.issues.map((i) => `${yaml.placeOf(i.path)}: ${i.path.join('.') || 'file'}: ${i.message}`),
    );
  const seen = new Set(MANAGEMENT_SCOPES.map(({ name }) => name));
  result.data.scopes.forEach(({ name }, index) => {
    if (seen.has(name))
      throw new ConfigError([`${yaml.placeOf(['scopes', index, 'name'])}: the scope ${name} is declared twice`]);
    seen.add(name);
  });
  return { text, scopes: result.data.scopes };
}

function contentOf(yaml: YamlFile): unknown {
  try {
    return yaml.content();
  } catch (error) {
    throw new ConfigError([`${yaml.placeOf([])}: ${(error as Error).message}`]);
  }
}

/** The declared scopes, and which roles have them: the only table of rights. */
class Declared {
  readonly byRole = new Map<string, ReadonlySet<string>>();
  readonly names: ReadonlySet<string>;
  readonly digest: Buffer;

  /** @param text the declarations as JSON; the digest is of this text */
  constructor(
    readonly list: readonly ScopeDeclaration[],
    readonly text: string = JSON.stringify(list),
  ) {
    this.digest = hash('sha256', text, 'buffer');
    this.names = new Set(list.map(({ name }) => name));
    for (const role of [null, ...PROJECT_ROLES]) {
      const held = list.filter((s) => (role ? s.projectRoles.includes(role) : s.members));
      this.byRole.set(`member ${role}`, new Set(held.map(({ name }) => name)));
      this.byRole.set(`admin ${role}`, this.names);
    }
  }
}

/** The scopes in force: those of the replica that started last, or read a changed file last. */
@Injectable()
export class ScopesService {
  #own: Declared;
  /** The text of the operator's file that `own` comes from. */
  #text = '';
  #inForce: Declared;

  constructor(
    @Inject(CONFIG) config: Pick<TokenServiceConfig, 'SCOPES_FILE'>,
    private readonly db: Database,
  ) {
    this.#own = this.use(config.SCOPES_FILE ? readScopesFile(config.SCOPES_FILE) : { text: '', scopes: [] });
    this.#inForce = this.#own;
  }

  /** Makes what a file declares this replica's own; it is in force once it is announced. */
  use({ text, scopes }: ScopesFile): Declared {
    this.#text = text;
    this.#own = new Declared([...MANAGEMENT_SCOPES, ...scopes]);
    return this.#own;
  }

  get fileText(): string {
    return this.#text;
  }

  /** The declarations that this replica read last. */
  get own(): Pick<Declared, 'digest' | 'text'> {
    return this.#own;
  }

  get declarations(): readonly ScopeDeclaration[] {
    return this.#inForce.list;
  }

  isKnown(scope: string): boolean {
    return this.#inForce.names.has(scope);
  }

  /** What a person of that role holds in a project where they have `role`, or (null) outside any. Administrators hold all. */
  heldBy(person: PersonRole, role: ProjectRole | null): ReadonlySet<string> {
    return this.#inForce.byRole.get(`${person} ${role}`)!;
  }

  /**
   * Adopts the last declarations. A replica with an earlier file would otherwise use it until it stops, and what a verifier
   * then remembers would never be invalidated.
   * @param digest of the declarations, as read together with the result
   */
  async follow(digest: Buffer): Promise<void> {
    if (digest.equals(this.#inForce.digest)) return;
    const [row] = await this.db.prepared<{ digest: Buffer; declarations: string | null }>(
      'scopes-in-force',
      'SELECT digest, declarations FROM scope_declarations',
      [],
    );
    if (!row?.declarations) return;
    const declared = new Declared(JSON.parse(row.declarations) as ScopeDeclaration[], row.declarations);
    // Version 0.1 writes only a digest; its declarations are not stored.
    if (declared.digest.equals(row.digest)) this.#inForce = declared;
  }
}
