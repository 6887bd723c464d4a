import type { MigrationInterface, QueryRunner } from 'typeorm';

/** The scopes as last declared, so that every replica answers by the same. */
export class ScopesInForce0000000000440 implements MigrationInterface {
  name = 'ScopesInForce0000000000440';

  async up(db: QueryRunner): Promise<void> {
    await db.query(`
ALTER TABLE scope_declarations ADD COLUMN declarations text;
COMMENT ON COLUMN scope_declarations.declarations IS 'JSON, of which digest is the SHA-256; written by version 0.2 and later';
`);
  }

  async down(): Promise<void> {
    throw new Error('migrations go forward only: restore a backup instead');
  }
}
