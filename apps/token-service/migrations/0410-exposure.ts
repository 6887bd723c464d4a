import type { MigrationInterface, QueryRunner } from 'typeorm';

/** What a token was shown: found by an index, and ended as a whole, step by step, whoever is killed on the way. */
export class Exposure0000000000410 implements MigrationInterface {
  name = 'Exposure0000000000410';

  async up(db: QueryRunner): Promise<void> {
    for (const part of [shown, exposures, members, grants]) await db.query(part);
  }

  async down(): Promise<void> {
    throw new Error('migrations go forward only: restore a backup instead');
  }
}

const shown = `
CREATE INDEX tokens_by_maker ON tokens (created_by_id, id) WHERE created_by_type = 'token';
COMMENT ON COLUMN tokens.created_by_id IS 'who issued, imported or rotated it: of type token, the token that its secret was shown to';
`;

const exposures = `
CREATE TABLE exposures (
  id uuid PRIMARY KEY,
  actor_type text NOT NULL CHECK (actor_type IN ('user', 'token', 'system')),
  actor_id uuid,
  actor_name text NOT NULL,
  comment text,
  created_at timestamptz(3) NOT NULL,
  touched_at timestamptz(3) NOT NULL,
  ended_at timestamptz(3),
  confirmed_at timestamptz(3),
  tokens integer NOT NULL DEFAULT 0,
  successors integer NOT NULL DEFAULT 0,
  descendants integer NOT NULL DEFAULT 0,
  shown integer NOT NULL DEFAULT 0,
  receipt jsonb
);
CREATE INDEX exposures_unfinished ON exposures (touched_at) WHERE confirmed_at IS NULL;
CREATE INDEX exposures_finished ON exposures (confirmed_at) WHERE confirmed_at IS NOT NULL;
COMMENT ON TABLE exposures IS 'tokens revoked as exposed, with all that they were shown';
COMMENT ON COLUMN exposures.touched_at IS 'of the last step: one that has not gone on for a while is taken up by whoever looks first';
COMMENT ON COLUMN exposures.ended_at IS 'when all of it had been ended; confirmed_at: and no verifier accepted any of it';
COMMENT ON COLUMN exposures.tokens IS 'ended by it altogether; successors, descendants and shown are counted in it too';
`;

const members = `
CREATE TABLE exposure_members (
  exposure_id uuid NOT NULL REFERENCES exposures,
  token_id uuid NOT NULL REFERENCES tokens,
  place bigint GENERATED ALWAYS AS IDENTITY,
  shown_to uuid,
  covered boolean NOT NULL,
  sought text NOT NULL DEFAULT 'shown' CHECK (sought IN ('shown', 'descendants', 'nothing')),
  scanned_to uuid,
  invalidation_id uuid,
  confirmed boolean NOT NULL,
  PRIMARY KEY (exposure_id, token_id)
);
CREATE INDEX exposure_members_sought ON exposure_members (exposure_id, sought, place) WHERE sought <> 'nothing';
CREATE INDEX exposure_members_unconfirmed ON exposure_members (exposure_id) WHERE NOT confirmed;
CREATE INDEX exposure_members_named ON exposure_members (token_id) WHERE shown_to IS NULL;
COMMENT ON TABLE exposure_members IS 'the closure of what exposed tokens were shown, dead ones too; in a row, a token is revoked';
COMMENT ON COLUMN exposure_members.shown_to IS 'the member that was shown its secret; null: it was named itself';
COMMENT ON COLUMN exposure_members.covered IS 'an ancestor is a member: the invalidation of that one covers it';
COMMENT ON COLUMN exposure_members.sought IS 'what is to be looked for next: tokens shown to it, then its descendants';
COMMENT ON COLUMN exposure_members.scanned_to IS 'tokens shown to it with ids up to this one are members already';
COMMENT ON COLUMN exposure_members.invalidation_id IS 'by which verifiers are told of its end, where they must be';
`;

const grants = `
GRANT SELECT, INSERT, UPDATE, DELETE ON exposures, exposure_members TO latchkey_service;
`;
