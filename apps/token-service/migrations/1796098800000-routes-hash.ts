import type { MigrationInterface, QueryRunner } from 'typeorm';

/** Which routes each gateway uses. Services of before know nothing of the column, and need not. */
export class RoutesHash1796098800000 implements MigrationInterface {
  name = 'RoutesHash1796098800000';
  readonly kind = 'expand';

  async up(db: QueryRunner): Promise<void> {
    await db.query(column);
  }

  async down(): Promise<void> {
    throw new Error('migrations go forward only: restore a backup instead');
  }
}

const column = `
ALTER TABLE leases ADD COLUMN routes_hash text;
COMMENT ON COLUMN leases.routes_hash IS 'of the routes that a gateway used at its last renewal; null for other verifiers';
`;
