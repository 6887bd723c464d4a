import type { MigrationInterface, QueryRunner } from 'typeorm';

/** Which peppers wrote this database, and what depends on each. */
export class Peppers1796024900000 implements MigrationInterface {
  name = 'Peppers1796024900000';

  async up(db: QueryRunner): Promise<void> {
    for (const part of [peppers, columns]) await db.query(part);
  }

  async down(): Promise<void> {
    throw new Error('migrations go forward only: restore a backup instead');
  }
}

const peppers = `
CREATE TABLE peppers (
  id smallint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  fingerprint bytea NOT NULL UNIQUE CHECK (octet_length(fingerprint) = 16),
  unmarked boolean NOT NULL,
  first_used_at timestamptz(3),
  current_at timestamptz(3),
  lacked_at timestamptz(3),
  unused_at timestamptz(3),
  given_up_at timestamptz(3)
);
COMMENT ON TABLE peppers IS 'those in TOKEN_PEPPERS, by fingerprint; in use: first_used_at is set, unused_at and given_up_at are not';
COMMENT ON COLUMN peppers.fingerprint IS 'the first 16 bytes of HMAC-SHA-256 under the pepper of a fixed label';
COMMENT ON COLUMN peppers.unmarked IS 'rows without a pepper_id can depend on it: configured when this table was first filled';
COMMENT ON COLUMN peppers.first_used_at IS 'when it first was the current one, at the latest';
COMMENT ON COLUMN peppers.current_at IS 'when a running token-service last had it as its current one';
COMMENT ON COLUMN peppers.lacked_at IS 'when a running token-service last lacked it';
COMMENT ON COLUMN peppers.unused_at IS 'since when nothing depends on it';
COMMENT ON COLUMN peppers.given_up_at IS 'when an operator declared it lost';
GRANT SELECT, INSERT, UPDATE ON peppers TO latchkey_service;
`;

// While an ALTER waits for a long read (pg_dump, for one), every later read of the table waits behind it: so it tries
// again and again, a second each, and lets the others pass in between. A nullable column without a default rewrites
// nothing. There is no foreign key: every insert would lock the row of the current pepper.
const columns = `
DO $$
BEGIN
  SET LOCAL lock_timeout = '1s';
  FOR attempt IN 1..120 LOOP
    BEGIN
      ALTER TABLE recovery_codes ADD COLUMN pepper_id smallint;
      ALTER TABLE second_factors ADD COLUMN pepper_id smallint;
      ALTER TABLE tokens ADD COLUMN pepper_id smallint;
      RETURN;
    EXCEPTION WHEN lock_not_available THEN
      IF attempt = 120 THEN RAISE; END IF;
      PERFORM pg_sleep(0.5);
    END;
  END LOOP;
END $$;
COMMENT ON COLUMN tokens.pepper_id IS 'in peppers: the one that its hash is under; NULL: written before there were ids, by one of the unmarked';
COMMENT ON COLUMN second_factors.pepper_id IS 'as tokens.pepper_id';
COMMENT ON COLUMN recovery_codes.pepper_id IS 'as tokens.pepper_id';
`;
