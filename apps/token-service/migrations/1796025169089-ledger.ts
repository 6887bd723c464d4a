import type { MigrationInterface, QueryRunner } from 'typeorm';

/** What the ledgers outside the database are compared with, and what was decided after a restore. */
export class Ledger1796025169089 implements MigrationInterface {
  name = 'Ledger1796025169089';

  async up(db: QueryRunner): Promise<void> {
    for (const part of [streams, restores, grants]) await db.query(part);
  }

  async down(): Promise<void> {
    throw new Error('migrations go forward only: restore a backup instead');
  }
}

const streams = `
CREATE TABLE ledger_streams (
  stream uuid PRIMARY KEY,
  ledger uuid NOT NULL,
  sequence bigint NOT NULL,
  mac text NOT NULL,
  history text NOT NULL,
  cursor_xid xid8 NOT NULL,
  seen_at timestamptz NOT NULL,
  compared_history text,
  is_settled boolean NOT NULL DEFAULT false,
  ended_at timestamptz
);
COMMENT ON TABLE ledger_streams IS 'how far this database has seen each stream of each ledger: a comparison after a restore starts here';
COMMENT ON COLUMN ledger_streams.mac IS 'authentication of the entry with that sequence';
COMMENT ON COLUMN ledger_streams.compared_history IS 'the history that its process last compared its ledger with';
COMMENT ON COLUMN ledger_streams.is_settled IS 'written in a settled history; of one that was not, a stream shows nothing about what that lacks';

CREATE TABLE ledger_replays (
  event_id uuid PRIMARY KEY,
  restore_id uuid NOT NULL
);
COMMENT ON TABLE ledger_replays IS 'audit events that a restore has lost and that were applied again, or found to need nothing';
`;

const restores = `
ALTER TABLE invalidation_log
  ADD COLUMN settled_history text,
  ADD COLUMN settled_incarnation text,
  ADD COLUMN restored_before timestamptz(3);
COMMENT ON COLUMN invalidation_log.settled_history IS 'the log and start of the server in which all tokens are answered; null before version 0.2';
COMMENT ON COLUMN invalidation_log.settled_incarnation IS 'the server, timeline and database of that history';
COMMENT ON COLUMN invalidation_log.restored_before IS 'tokens and sessions created before it are not accepted until the restore is settled';

CREATE TABLE restores (
  id uuid PRIMARY KEY,
  history text NOT NULL CONSTRAINT restores_history_once UNIQUE,
  detected_at timestamptz(3) NOT NULL,
  newest_event_at timestamptz(3),
  reason text,
  ledger_reaches_to timestamptz(3),
  reapplied integer NOT NULL DEFAULT 0,
  must_set_password integer NOT NULL DEFAULT 0,
  sessions_ended integer NOT NULL DEFAULT 0,
  not_reapplied jsonb NOT NULL DEFAULT '[]',
  settled_at timestamptz(3),
  choice text
);
CREATE INDEX restores_by_time ON restores (detected_at DESC);
`;

const grants = `
GRANT SELECT, INSERT, UPDATE, DELETE ON ledger_streams, ledger_replays TO latchkey_service;
GRANT SELECT, INSERT, UPDATE ON restores TO latchkey_service;
GRANT SELECT ON restores TO latchkey_jobs;
`;
