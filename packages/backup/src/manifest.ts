import { createHash } from 'node:crypto';
import { z } from 'zod';

/** Raised when an older Latchkey could misread an archive. */
export const FORMAT = 1;

const digest = z.string().regex(/^[0-9a-f]{64}$/);
/** Names in the archive become parts of paths and statements. */
const name = z.string().regex(/^[A-Za-z0-9_.-]{1,63}$/);

/** What is known before the first row is read: the archive's first entry. */
export const manifestSchema = z.object({
  format: z.literal(FORMAT),
  id: z.uuid(),
  /** The moment whose state the archive has, by PostgreSQL's clock. */
  madeAt: z.iso.datetime(),
  latchkeyVersion: z.string(),
  postgresqlVersion: z.string(),
  systemIdentifier: z.string(),
  /** Id of the invalidation log. */
  log: z.uuid(),
  audit: z.object({
    newestEventAt: z.iso.datetime().nullable(),
    /** The newest event that was sealed. */
    head: z.object({ seq: z.number(), hash: digest }).nullable(),
    /** Months that have a partition, as 2026_01. */
    months: z.array(z.string().regex(/^\d{4}_\d{2}$/)),
  }),
  /** In the order in which they had run. */
  migrations: z.array(z.string().min(1)).min(1),
  /** In an order in which every row comes after those that it refers to. */
  tables: z.array(z.object({ name, columns: z.array(z.string().min(1)).min(1) })),
  /** Tables without their rows. */
  leftOut: z.array(name),
  sequences: z.array(z.object({ name, value: z.string().regex(/^-?\d+$/), isCalled: z.boolean() })),
  /** Passwords have no fingerprint, because they could be guessed from it. */
  secrets: z.array(z.object({ name, fingerprint: z.string().nullable() })),
  files: z.array(name),
});
export type Manifest = z.infer<typeof manifestSchema>;

const contentSchema = z.object({ bytes: z.number(), sha256: digest });

/** The archive's last entry: without it the archive is not complete. */
export const digestsSchema = z.object({
  tables: z.record(name, contentSchema.extend({ rows: z.number() })),
  secrets: z.record(name, contentSchema),
  files: z.record(name, contentSchema),
});
export type Digests = z.infer<typeof digestsSchema>;
export type Content = z.infer<typeof contentSchema>;

/** Tells whether two places have the same secret. Null for a password. */
export function fingerprintOf(secretName: string, value: string): string | null {
  if (secretName.endsWith('_PASSWORD')) return null;
  return createHash('sha256').update(`latchkey secret ${secretName} ${value}`).digest('hex').slice(0, 16);
}

/** Counts and digests the content of one table, secret or file. */
export class Digesting {
  private readonly hash = createHash('sha256');
  bytes = 0;
  rows = 0;

  /** Adds COPY text, where every row ends with the only kind of line break in it. */
  add(data: Uint8Array): void {
    this.hash.update(data);
    this.bytes += data.length;
    for (let at = data.indexOf(10); at >= 0; at = data.indexOf(10, at + 1)) this.rows++;
  }

  get content(): Content {
    return { bytes: this.bytes, sha256: this.hash.copy().digest('hex') };
  }
}
