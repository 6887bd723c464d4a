import type { MigrationInterface, QueryRunner } from 'typeorm';

/** Tells one database from another under one ledger key. A dump keeps it. */
export class DatabaseIdentity1796052071289 implements MigrationInterface {
  name = 'DatabaseIdentity1796052071289';

  async up(db: QueryRunner): Promise<void> {
    await db.query(identity);
  }

  async down(): Promise<void> {
    throw new Error('migrations go forward only: restore a backup instead');
  }
}

// Of a database that is in use, the id of its first person: dumps from before this migration get the same. The table is not
// rewritten, for that would look like a restore.
const identity = `
ALTER TABLE invalidation_log ADD COLUMN database uuid;
UPDATE invalidation_log SET database = coalesce((SELECT id FROM users ORDER BY created_at, id LIMIT 1), gen_random_uuid());
ALTER TABLE invalidation_log ALTER COLUMN database SET NOT NULL;
COMMENT ON COLUMN invalidation_log.database IS 'made once and kept by dumps: tells this database from others whose ledgers are in the same folder';
`;
