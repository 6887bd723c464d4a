import type { MigrationInterface, QueryRunner } from 'typeorm';

/**
 * Recording an expiry writes nothing to the token itself. Noted in its row, it made a new version of the row and an entry
 * in each of its indexes: scattered pages, the more of them the more tokens there are. A mark says instead up to which
 * end all are recorded.
 */
export class ExpiryByMark0000000000203 implements MigrationInterface {
  name = 'ExpiryByMark0000000000203';

  async up(db: QueryRunner): Promise<void> {
    await db.query(`
-- Up to which place, by end and id, tokens past their end were recorded.
CREATE TABLE expiry_mark (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  at timestamptz(3) NOT NULL,
  token_id uuid NOT NULL
);
INSERT INTO expiry_mark (at, token_id) VALUES ('epoch', '00000000-0000-0000-0000-000000000000');

-- Which were recorded: whoever looks again does not tell again.
CREATE TABLE expired_tokens (
  token_id uuid PRIMARY KEY,
  recorded_at timestamptz(3) NOT NULL DEFAULT now()
);
INSERT INTO expired_tokens (token_id, recorded_at)
  SELECT id, expiry_recorded_at FROM tokens WHERE expiry_recorded_at IS NOT NULL ORDER BY id;

-- Ends so near that the mark may pass them before the token's transaction has ended.
CREATE TABLE expiry_soon (
  token_id uuid PRIMARY KEY,
  ends_at timestamptz(3) NOT NULL
);
CREATE INDEX expiry_soon_by_end ON expiry_soon (ends_at);

CREATE FUNCTION expiry_note_soon() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO expiry_soon (token_id, ends_at) VALUES (NEW.id, NEW.expires_at)
    ON CONFLICT (token_id) DO UPDATE SET ends_at = excluded.ends_at;
  RETURN NULL;
END $$;
CREATE TRIGGER tokens_end_soon AFTER INSERT OR UPDATE OF expires_at ON tokens
  FOR EACH ROW WHEN (NEW.expires_at <= now() + interval '5 minutes') EXECUTE FUNCTION expiry_note_soon();

DROP INDEX tokens_expiry_due;
ALTER TABLE tokens DROP COLUMN expiry_recorded_at;
CREATE INDEX tokens_by_own_end ON tokens (expires_at, id) WHERE revoked_at IS NULL AND expires_at IS NOT NULL;

GRANT SELECT, UPDATE ON expiry_mark TO latchkey_service;
GRANT SELECT, INSERT ON expired_tokens TO latchkey_service;
GRANT SELECT, INSERT, UPDATE, DELETE ON expiry_soon TO latchkey_service;
GRANT SELECT ON expiry_mark, expiry_soon TO latchkey_jobs;`);
  }

  async down(): Promise<void> {
    throw new Error('migrations go forward only: restore a backup instead');
  }
}
