import type { MigrationInterface, QueryRunner } from 'typeorm';

/** Remembers which ledgers beside the own one were decided to say nothing about this database. */
export class UncertainLedgers1796061600000 implements MigrationInterface {
  name = 'UncertainLedgers1796061600000';

  async up(db: QueryRunner): Promise<void> {
    await db.query(ignored);
  }

  async down(): Promise<void> {
    throw new Error('migrations go forward only: restore a backup instead');
  }
}

const ignored = `
CREATE TABLE ledgers_ignored (
  name text PRIMARY KEY,
  alive_until timestamptz NOT NULL,
  since timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE ledgers_ignored IS 'ledgers beside the own one that may have been of this database, until an administrator decided about a restore';
COMMENT ON COLUMN ledgers_ignored.name IS 'the id of the ledger; of one that cannot be read, the name of its folder';
COMMENT ON COLUMN ledgers_ignored.alive_until IS 'one that was alive later is looked at again';
GRANT SELECT, INSERT, UPDATE ON ledgers_ignored TO latchkey_service;
`;
