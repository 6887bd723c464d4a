import type { MigrationInterface, QueryRunner } from 'typeorm';

/** Receipts are kept by their ids. */
export class Receipts0000000000470 implements MigrationInterface {
  name = 'Receipts0000000000470';

  async up(db: QueryRunner): Promise<void> {
    await db.query(receipts);
  }

  async down(): Promise<void> {
    throw new Error('migrations go forward only: restore a backup instead');
  }
}

const receipts = `
CREATE TABLE receipts (
  id uuid PRIMARY KEY,
  token_ids uuid[] NOT NULL DEFAULT '{}',
  user_id uuid,
  project_id uuid,
  body jsonb NOT NULL
);
COMMENT ON TABLE receipts IS 'what was answered of each confirmed change, never changed; removed by the time in the id';
COMMENT ON COLUMN receipts.token_ids IS 'whoever may see one of these tokens may see it, as may the person user_id and who may see the project project_id; administrators see all';

GRANT SELECT, INSERT ON receipts TO latchkey_service;
GRANT SELECT, DELETE ON receipts TO latchkey_retention;
`;
