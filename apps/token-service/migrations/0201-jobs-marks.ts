import type { MigrationInterface, QueryRunner } from 'typeorm';

/** How far jobs have looked, and which notices were reported to the audit log. */
export class JobsMarks0000000000201 implements MigrationInterface {
  name = 'JobsMarks0000000000201';

  async up(db: QueryRunner): Promise<void> {
    await db.query(`
ALTER TABLE notices ADD COLUMN reported_at timestamptz(3);
CREATE INDEX notices_to_report ON notices (at) WHERE kind = 'used_after_rotation' AND reported_at IS NULL;

-- Tokens that nobody used for long are found by when they were last used, from where the last look ended.
CREATE INDEX token_usage_by_last_use ON token_usage (last_used_at);
CREATE TABLE maintenance_marks (
  name text PRIMARY KEY,
  at timestamptz(3) NOT NULL
);
GRANT SELECT, INSERT, UPDATE ON maintenance_marks TO latchkey_service;`);
  }

  async down(): Promise<void> {
    throw new Error('migrations go forward only: restore a backup instead');
  }
}
