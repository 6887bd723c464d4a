import type { MigrationInterface, QueryRunner } from 'typeorm';

/** The services read what the database has been migrated to, and which of them it still serves. */
export class SchemaVersion1796098773848 implements MigrationInterface {
  name = 'SchemaVersion1796098773848';
  readonly kind = 'expand';

  async up(db: QueryRunner): Promise<void> {
    await db.query(version);
  }

  async down(): Promise<void> {
    throw new Error('migrations go forward only: restore a backup instead');
  }
}

const version = `
CREATE FUNCTION schema_min_version() RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT '0.1.0' $$;
COMMENT ON FUNCTION schema_min_version IS 'the oldest version of the services that can use this database; a migration that removes something replaces it';
GRANT SELECT ON migrations TO latchkey_service, latchkey_jobs;
`;
