import type { MigrationInterface, QueryRunner } from 'typeorm';

/** Letters with a link by which a person sets a password: which are to be sent, never what stands in them. */
export class Letters0000000000122 implements MigrationInterface {
  name = 'Letters0000000000122';

  async up(db: QueryRunner): Promise<void> {
    await db.query(`
-- Several codes of one person may be good at once, so that nobody voids a letter by asking for another.
ALTER TABLE password_resets DROP CONSTRAINT password_resets_pkey, ADD PRIMARY KEY (user_id, hash);
CREATE INDEX password_resets_by_end ON password_resets (expires_at);

CREATE TABLE letters (
  id uuid PRIMARY KEY,
  user_id uuid NOT NULL REFERENCES users,
  kind text NOT NULL CHECK (kind IN ('reset', 'invitation')),
  attempts integer NOT NULL DEFAULT 0,
  created_at timestamptz(3) NOT NULL,
  next_at timestamptz(3) NOT NULL,
  CONSTRAINT letters_one_waiting UNIQUE (user_id)
);
CREATE INDEX letters_due ON letters (next_at);
CREATE INDEX letters_by_time ON letters (created_at);
COMMENT ON TABLE letters IS 'to be sent: the code is made when a carrier takes the letter, and only its hash is kept';

CREATE TABLE letter_carrier (
  single boolean PRIMARY KEY DEFAULT true CHECK (single),
  seen_at timestamptz(3) NOT NULL
);
INSERT INTO letter_carrier (seen_at) VALUES ('epoch');
COMMENT ON TABLE letter_carrier IS 'when somebody who can send letters last asked for them';

GRANT SELECT, INSERT, UPDATE, DELETE ON letters TO latchkey_service;
GRANT SELECT, UPDATE ON letter_carrier TO latchkey_service;
`);
  }

  async down(): Promise<void> {
    throw new Error('migrations go forward only: restore a backup instead');
  }
}
