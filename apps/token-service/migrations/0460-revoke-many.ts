import type { MigrationInterface, QueryRunner } from 'typeorm';

/** Tokens named by a filter are ended as those exposed are: in steps that any process can go on with. */
export class RevokeMany0000000000460 implements MigrationInterface {
  name = 'RevokeMany0000000000460';

  async up(db: QueryRunner): Promise<void> {
    await db.query(batches);
  }

  async down(): Promise<void> {
    throw new Error('migrations go forward only: restore a backup instead');
  }
}

const batches = `
ALTER TABLE exposures
  ADD COLUMN reason text NOT NULL DEFAULT 'exposed',
  ADD COLUMN filter jsonb;
ALTER TABLE exposure_members
  DROP CONSTRAINT exposure_members_sought_check,
  ADD CONSTRAINT exposure_members_sought_check CHECK (sought IN ('itself', 'shown', 'descendants', 'nothing'));
COMMENT ON TABLE exposures IS 'tokens revoked as exposed, with all that they were shown; and tokens revoked by a filter, for any reason';
COMMENT ON COLUMN exposures.filter IS 'that named the tokens; null: they were named one by one, or by their owner';
COMMENT ON TABLE exposure_members IS 'the tokens named, and of exposed ones the closure of what they were shown, dead ones too; but for those where itself is sought, a token is revoked';
COMMENT ON COLUMN exposure_members.sought IS 'what is to be ended next: itself, tokens shown to it (of exposed ones), its descendants';
`;
