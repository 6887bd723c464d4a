import type { MigrationInterface, QueryRunner } from 'typeorm';

/** Tokens are listed by name and by end as well as by time: of all, and of one owner. */
export class TokenOrders0000000000110 implements MigrationInterface {
  name = 'TokenOrders0000000000110';

  async up(db: QueryRunner): Promise<void> {
    await db.query(indexes);
  }

  async down(): Promise<void> {
    throw new Error('migrations go forward only: restore a backup instead');
  }
}

const indexes = `
CREATE INDEX tokens_by_lower_name ON tokens (lower(name), id);
CREATE INDEX tokens_by_owner_name ON tokens (owner_id, lower(name), id);
CREATE INDEX tokens_by_end ON tokens (COALESCE(ends_at, 'infinity'), id);
CREATE INDEX tokens_by_owner_end ON tokens (owner_id, COALESCE(ends_at, 'infinity'), id);
`;
