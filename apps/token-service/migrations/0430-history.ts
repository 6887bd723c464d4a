import type { MigrationInterface, QueryRunner } from 'typeorm';

/**
 * Which server, and which history, is answered from: proofs that a server still commits, the longest lease that may be
 * running, and starts of the server, after any of which a folder may have been put back.
 */
export class History0000000000430 implements MigrationInterface {
  name = 'History0000000000430';

  async up(db: QueryRunner): Promise<void> {
    for (const part of [proofs, log, follow, grants]) await db.query(part);
  }

  async down(): Promise<void> {
    throw new Error('migrations go forward only: restore a backup instead');
  }
}

const proofs = `
CREATE TABLE authority_proofs (
  connection uuid PRIMARY KEY,
  proved_at timestamptz NOT NULL
);
CREATE INDEX authority_proofs_by_time ON authority_proofs (proved_at);
COMMENT ON TABLE authority_proofs IS 'one row for each connection of a token-service: its commit shows that this is the primary';
`;

const log = `
ALTER TABLE invalidation_log
  ADD COLUMN longest_lease_ms integer NOT NULL DEFAULT 0,
  ADD COLUMN postmaster_started_at timestamptz,
  ADD COLUMN begun_in timestamptz;
COMMENT ON COLUMN invalidation_log.longest_lease_ms IS 'the longest lease ever granted, raised before a longer one is';
COMMENT ON COLUMN invalidation_log.postmaster_started_at IS 'of the server as last seen; null before version 0.2';
COMMENT ON COLUMN invalidation_log.begun_in IS 'start of the server under which this log was begun: until the next one nothing can have been put back';
UPDATE invalidation_log SET longest_lease_ms = coalesce((SELECT max(lease_ms) FROM leases), 0);
`;

const follow = `
-- Brings the log up to where this database stands, if nobody else has. Goes in: an id for a new log, where the database
-- stands, when its server started, an id for a lease in nobody's hands, the caller's own lease, and the id of a log that
-- a verifier has shown to have forgotten what it once knew (null: none). A new log is begun in another database or
-- timeline, and for one that has forgotten, once for each start of the server: verifiers of the old one empty their memory,
-- and those that show the same afterwards are reset alone. Leases that history has
-- forgotten may still be running, so a lease in nobody's hands is put down for whoever confirms to wait for; a mere
-- start of the server may be that of a folder put back, so it puts one down too. Invalidations stay; those of another
-- server's transaction ids are given one of this server's.
CREATE FUNCTION log_follow(new_log uuid, here text, started timestamptz, nobody uuid, own_ms integer, forgetful uuid)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  there invalidation_log%ROWTYPE;
BEGIN
  SELECT * INTO there FROM invalidation_log FOR UPDATE;
  IF there.begun_in = started THEN
    forgetful := NULL;
  END IF;
  IF there.incarnation = '' THEN
    UPDATE invalidation_log SET log = new_log, incarnation = here, postmaster_started_at = started, begun_in = started,
      longest_lease_ms = greatest(longest_lease_ms, own_ms);
    RETURN;
  END IF;
  IF there.incarnation <> here OR there.log = forgetful THEN
    UPDATE invalidation_log SET log = new_log, incarnation = here, postmaster_started_at = started, begun_in = started,
      removed_to = CASE WHEN there.incarnation = here THEN removed_to ELSE '0' END;
    UPDATE invalidations SET xid = pg_current_xact_id() WHERE xid > pg_current_xact_id();
  ELSIF there.postmaster_started_at IS NULL THEN
    UPDATE invalidation_log SET postmaster_started_at = started;
    RETURN;
  ELSIF there.postmaster_started_at <> started THEN
    UPDATE invalidation_log SET postmaster_started_at = started;
  ELSE
    RETURN;
  END IF;
  INSERT INTO leases (verifier_id, name, caller, renewal, lease_ms, renewed_at)
  VALUES (nobody,
    CASE WHEN there.incarnation = here AND there.log IS DISTINCT FROM forgetful THEN 'whoever was there before the database started'
      ELSE 'whoever was there before the restore' END,
    'nobody', pg_current_xact_id(),
    greatest(own_ms, there.longest_lease_ms, (SELECT max(lease_ms) FROM leases)), now());
END $$;
COMMENT ON FUNCTION log_renew(uuid, text, uuid, integer) IS 'of token-services of 0.1, which may run beside this schema';
`;

const grants = `
GRANT SELECT, INSERT, UPDATE, DELETE ON authority_proofs TO latchkey_service;
GRANT UPDATE (xid) ON invalidations TO latchkey_service;
`;
