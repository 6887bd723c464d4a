import type { MigrationInterface, QueryRunner } from 'typeorm';

/** Codes that stand in for a lost authenticator app. */
export class RecoveryCodes0000000000121 implements MigrationInterface {
  name = 'RecoveryCodes0000000000121';

  async up(db: QueryRunner): Promise<void> {
    await db.query(`
CREATE TABLE recovery_codes (
  user_id uuid NOT NULL REFERENCES users,
  hash bytea NOT NULL CHECK (octet_length(hash) = 32),
  PRIMARY KEY (user_id, hash)
);
COMMENT ON TABLE recovery_codes IS 'those not used yet: HMAC-SHA-256 under a key derived from a pepper of the code, which is 80 random bits';
GRANT SELECT, INSERT, DELETE ON recovery_codes TO latchkey_service;
`);
  }

  async down(): Promise<void> {
    throw new Error('migrations go forward only: restore a backup instead');
  }
}
