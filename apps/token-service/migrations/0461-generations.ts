import type { MigrationInterface, QueryRunner } from 'typeorm';

/** Everything is revoked at once: one number is raised, and every token of an earlier one is dead. */
export class Generations0000000000461 implements MigrationInterface {
  name = 'Generations0000000000461';

  async up(db: QueryRunner): Promise<void> {
    await db.query(generations);
  }

  async down(): Promise<void> {
    throw new Error('migrations go forward only: restore a backup instead');
  }
}

const generations = `
ALTER TABLE tokens ADD COLUMN generation integer NOT NULL DEFAULT 0;
COMMENT ON COLUMN tokens.generation IS 'the current one when whoever made it was seen to live; below the current one: revoked, whether the row says so yet or not';

CREATE TABLE token_generation (
  single boolean PRIMARY KEY DEFAULT true CHECK (single),
  current integer NOT NULL
);
INSERT INTO token_generation (current) VALUES (0);

CREATE TABLE revocations_of_all (
  generation integer PRIMARY KEY,
  actor_type text NOT NULL CHECK (actor_type IN ('user', 'token', 'system')),
  actor_id uuid,
  reason text NOT NULL,
  comment text,
  at timestamptz(3) NOT NULL,
  invalidation_id uuid NOT NULL,
  receipt jsonb,
  fence xid8,
  marked_to uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
  marked_at timestamptz(3)
);
CREATE INDEX revocations_of_all_unmarked ON revocations_of_all (generation) WHERE marked_at IS NULL;
COMMENT ON TABLE revocations_of_all IS 'one row for each time that everything was revoked; never removed: tokens whose rows do not say so yet take it from here';
COMMENT ON COLUMN revocations_of_all.generation IS 'that began with it: it ended the tokens of the one before';
COMMENT ON COLUMN revocations_of_all.fence IS 'once all transactions below have ended, no token of an earlier generation is inserted any more';
COMMENT ON COLUMN revocations_of_all.marked_to IS 'rows of tokens with ids up to this one say so themselves; marked_at: all do';

GRANT SELECT, UPDATE ON token_generation TO latchkey_service;
GRANT SELECT, INSERT, UPDATE ON revocations_of_all TO latchkey_service;
`;
