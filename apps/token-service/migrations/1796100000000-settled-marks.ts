import type { MigrationInterface, QueryRunner } from 'typeorm';

/** Remembers when each stream of a ledger was last seen in a settled history: a later mark no longer hides it. */
export class SettledMarks1796100000000 implements MigrationInterface {
  name = 'SettledMarks1796100000000';
  readonly kind = 'expand';

  async up(db: QueryRunner): Promise<void> {
    await db.query('ALTER TABLE ledger_streams ADD COLUMN settled_seen_at timestamptz');
    await db.query('UPDATE ledger_streams SET settled_seen_at = seen_at WHERE is_settled');
    await db.query(
      `COMMENT ON COLUMN ledger_streams.settled_seen_at IS 'when it was last seen in a settled history; null: never'`,
    );
  }

  async down(): Promise<void> {
    throw new Error('migrations go forward only: restore a backup instead');
  }
}
