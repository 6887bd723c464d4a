import type { MigrationInterface, QueryRunner } from 'typeorm';

/** Jobs warns before the policy revokes what nobody uses, and so reads the policy. */
export class IdleWarnings0000000000202 implements MigrationInterface {
  name = 'IdleWarnings0000000000202';

  async up(db: QueryRunner): Promise<void> {
    await db.query('GRANT SELECT ON policy TO latchkey_jobs');
  }

  async down(): Promise<void> {
    throw new Error('migrations go forward only: restore a backup instead');
  }
}
