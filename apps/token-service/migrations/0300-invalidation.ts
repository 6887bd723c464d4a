import type { MigrationInterface, QueryRunner } from 'typeorm';

/** What the invalidation protocol needs beyond its tables. */
export class Invalidation0000000000300 implements MigrationInterface {
  name = 'Invalidation0000000000300';

  async up(db: QueryRunner): Promise<void> {
    for (const part of [log, renew, take, prune, grants]) await db.query(part);
  }

  async down(): Promise<void> {
    throw new Error('migrations go forward only: restore a backup instead');
  }
}

const log = `
ALTER TABLE invalidation_log
  DROP COLUMN system_identifier,
  ADD COLUMN incarnation text NOT NULL DEFAULT '',
  ADD COLUMN removed_to xid8 NOT NULL DEFAULT '0';
COMMENT ON COLUMN invalidation_log.incarnation IS 'the database that the log was begun in; in any other it is renewed';
COMMENT ON COLUMN invalidation_log.removed_to IS 'the highest transaction id whose invalidations have been removed';
`;

const renew = `
-- Begins a new log when this database is another than the log was begun in. Goes in: the new log's id, where this
-- database stands, and an id and a length for a lease in nobody's hands. Verifiers of the old log empty their memory,
-- so its invalidations go. Leases taken after the backup are gone with their rows: the lease in nobody's hands makes
-- every confirmation wait as long as any of them can last. A log that never was in use needs none.
CREATE FUNCTION log_renew(new_log uuid, here text, nobody uuid, longest_ms integer) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
  there text;
BEGIN
  SELECT incarnation INTO there FROM invalidation_log FOR UPDATE;
  IF there = here THEN
    RETURN false;
  END IF;
  UPDATE invalidation_log SET log = new_log, incarnation = here, removed_to = '0';
  IF there <> '' THEN
    DELETE FROM invalidations;
    INSERT INTO leases (verifier_id, name, caller, renewal, lease_ms, renewed_at)
    VALUES (nobody, 'whoever was there before the restore', 'nobody', pg_current_xact_id(),
      greatest(longest_ms, (SELECT max(lease_ms) FROM leases)), now());
  END IF;
  RETURN true;
END $$;
`;

const take = `
-- Takes or renews a lease. Goes in: the verifier, its name, who calls, the cursor it sends (nulls: none), the length
-- granted, and how many leases the caller may hold (null: any number). Comes out: taken, foreign (the id belongs to
-- another caller) or too_many. A length once granted stays the row's: a lost answer may have left it running.
CREATE FUNCTION lease_take(verifier uuid, verifier_name text, called_by text, sent_log uuid, sent_xid xid8,
  granted_ms integer, caller_leases_max integer) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  IF caller_leases_max IS NOT NULL THEN
    PERFORM pg_advisory_xact_lock(hashtextextended('latchkey leases of ' || called_by, 0));
    IF (SELECT count(*) FROM leases WHERE caller = called_by AND verifier_id <> verifier) >= caller_leases_max THEN
      RETURN 'too_many';
    END IF;
  END IF;
  INSERT INTO leases AS held (verifier_id, name, caller, renewal, cursor_log, cursor_xid, lease_ms, renewed_at)
  VALUES (verifier, verifier_name, called_by, pg_current_xact_id(), sent_log, sent_xid, granted_ms, now())
  ON CONFLICT (verifier_id) DO UPDATE SET name = excluded.name, renewal = excluded.renewal,
    cursor_log = excluded.cursor_log, cursor_xid = excluded.cursor_xid,
    lease_ms = greatest(held.lease_ms, excluded.lease_ms), renewed_at = excluded.renewed_at
  WHERE held.caller = excluded.caller;
  RETURN CASE WHEN FOUND THEN 'taken' ELSE 'foreign' END;
END $$;
`;

const prune = `
-- Removes at most rows_max invalidations written longer ago than keep_ms, lowest transaction ids first, and answers how
-- many. removed_to says so in the same transaction: a verifier whose cursor is no higher empties its memory. Rows of
-- transactions that a cursor may still point at stay, or a long transaction would make every renewal a reset.
CREATE FUNCTION log_prune(keep_ms double precision, rows_max integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
  removed integer;
  highest xid8;
BEGIN
  PERFORM 1 FROM invalidation_log FOR UPDATE;
  WITH gone AS (
    DELETE FROM invalidations WHERE xid < coalesce(
      (SELECT least(stays.xid, pg_snapshot_xmin(pg_current_snapshot())) FROM (
        (SELECT xid FROM invalidations WHERE created_at >= now() - keep_ms * interval '1 millisecond' ORDER BY xid LIMIT 1)
        UNION ALL
        (SELECT xid FROM invalidations ORDER BY xid OFFSET rows_max LIMIT 1)
        ORDER BY xid LIMIT 1) stays),
      pg_snapshot_xmin(pg_current_snapshot()))
    RETURNING xid)
  SELECT count(*), max(xid) INTO removed, highest FROM gone;
  UPDATE invalidation_log SET removed_to = greatest(removed_to, highest) WHERE highest IS NOT NULL;
  RETURN removed;
END $$;
`;

const grants = `
GRANT UPDATE (log, incarnation, removed_to) ON invalidation_log TO latchkey_service;
`;
