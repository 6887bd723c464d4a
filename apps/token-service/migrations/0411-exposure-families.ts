import type { MigrationInterface, QueryRunner } from 'typeorm';

/** How fast tokens make tokens is bounded: of each, the one that a person made at the beginning. */
export class ExposureFamilies0000000000411 implements MigrationInterface {
  name = 'ExposureFamilies0000000000411';

  async up(db: QueryRunner): Promise<void> {
    await db.query(families);
  }

  async down(): Promise<void> {
    throw new Error('migrations go forward only: restore a backup instead');
  }
}

const families = `
ALTER TABLE tokens ADD COLUMN family_id uuid;
CREATE INDEX tokens_by_family ON tokens (family_id, created_at) WHERE family_id IS NOT NULL;
COMMENT ON COLUMN tokens.family_id IS 'the token at the beginning of those that were shown each other; null: it was shown to no token, or made before this column';
`;
