import type { MigrationInterface, QueryRunner } from 'typeorm';

/** What a token's rate limit is counted under: a rotated token goes on counting where its predecessor stopped. */
export class RateBuckets0000000000450 implements MigrationInterface {
  name = 'RateBuckets0000000000450';

  async up(db: QueryRunner): Promise<void> {
    await db.query(`
ALTER TABLE tokens ADD COLUMN rate_bucket uuid;
COMMENT ON COLUMN tokens.rate_bucket IS 'the first token of its rotations, whose count goes on; null: its own id';
`);
  }

  async down(): Promise<void> {
    throw new Error('migrations go forward only: restore a backup instead');
  }
}
