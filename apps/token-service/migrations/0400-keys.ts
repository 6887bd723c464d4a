import type { MigrationInterface, QueryRunner } from 'typeorm';

/**
 * Leases by claim: the token-service hands out a verifier's id, and a row brings the salt of its key. Whoever makes
 * others wait gets no lease for a while. Replicas of the version before go on with `lease_take`.
 */
export class Keys0000000000400 implements MigrationInterface {
  name = 'Keys0000000000400';

  async up(db: QueryRunner): Promise<void> {
    for (const part of [leases, holders, renew, lapse, strike, announce, grants]) await db.query(part);
  }

  async down(): Promise<void> {
    throw new Error('migrations go forward only: restore a backup instead');
  }
}

const leases = `
ALTER TABLE leases
  ADD COLUMN claim bytea,
  ADD COLUMN key_salt bytea,
  ADD COLUMN nonces uuid[] NOT NULL DEFAULT '{}',
  ADD COLUMN is_reborn boolean NOT NULL DEFAULT false,
  ADD COLUMN version text NOT NULL DEFAULT '',
  ADD COLUMN holder text NOT NULL DEFAULT '',
  ADD COLUMN caller_token uuid,
  ADD COLUMN caller_lineage uuid[] NOT NULL DEFAULT '{}',
  ADD COLUMN caller_owner uuid,
  ADD COLUMN created_at timestamptz(3) NOT NULL DEFAULT now(),
  ADD COLUMN ended_at timestamptz(3),
  ADD COLUMN released_at timestamptz(3),
  ADD COLUMN last_confirmation_ms real;
COMMENT ON COLUMN leases.claim IS 'SHA-256 of the claim for which the id was handed out; null: a verifier of version 0.1';
COMMENT ON COLUMN leases.key_salt IS 'the acknowledgement key is derived from it: with the row it ends';
COMMENT ON COLUMN leases.nonces IS 'given with renewals, newest first, back to the one presented last, which a verifier holds until it gets another: one that presents none of them was here in a history that this one forgot';
COMMENT ON COLUMN leases.is_reborn IS 'made for a verifier that had a row before, which lapsed: what it presents may be of that one';
COMMENT ON COLUMN leases.holder IS 'who answers for the caller: first-party, or the owner of the token that it stems from';
COMMENT ON COLUMN leases.caller_lineage IS 'the calling token and its ancestors: revoking one of them ends the lease';
COMMENT ON COLUMN leases.ended_at IS 'not renewed any more; it lapses like any other, and until then confirmations wait for it';
COMMENT ON COLUMN leases.released_at IS 'given back by the verifier itself; the row goes when its lease would have lapsed';
CREATE UNIQUE INDEX leases_by_claim ON leases (caller, claim);
CREATE INDEX leases_by_holder ON leases (holder);
`;

const holders = `
-- What is known against whoever holds leases.
CREATE TABLE lease_holders (
  holder text PRIMARY KEY,
  fresh_lapses integer NOT NULL DEFAULT 0,
  fresh_lapse_at timestamptz(3),
  suspensions integer NOT NULL DEFAULT 0,
  suspended_until timestamptz(3)
);
COMMENT ON COLUMN lease_holders.fresh_lapses IS 'rows that lapsed before their verifier had lived for a lease, in a row';
COMMENT ON COLUMN lease_holders.suspensions IS 'in a row: each is twice as long as the one before';

-- Leases that a confirmation had to wait out, each counted once, by whichever replica.
CREATE TABLE lease_strikes (
  verifier_id uuid NOT NULL,
  renewal xid8 NOT NULL,
  holder text NOT NULL,
  at timestamptz(3) NOT NULL DEFAULT now(),
  counted boolean NOT NULL DEFAULT false,
  PRIMARY KEY (verifier_id, renewal)
);
CREATE INDEX lease_strikes_by_holder ON lease_strikes (holder, at);

-- Verifiers that must live for a lease before they are given one.
CREATE TABLE lease_waiting (
  holder text NOT NULL,
  claim bytea NOT NULL,
  since timestamptz(3) NOT NULL DEFAULT now(),
  PRIMARY KEY (holder, claim)
);

-- Keys that renewals name, by id: a new one signs once verifiers have had a lease's time to learn it.
CREATE TABLE feed_keys (
  id text PRIMARY KEY,
  announced_at timestamptz(3) NOT NULL DEFAULT now(),
  seen_at timestamptz(3) NOT NULL DEFAULT now()
);
`;

const renew = `
-- The nonce that follows another (null: the first): its number in the first eight digits, the rest random.
CREATE FUNCTION nonce_after(before uuid, random uuid) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
  SELECT overlay(random::text PLACING
    lpad(to_hex(coalesce(('x' || left(before::text, 8))::bit(32)::bigint, 0) + 1), 8, '0') FROM 1 FOR 8)::uuid
$$;

-- Takes or renews a lease. Goes in: an id and a salt in case of a new row; the claim's hash, or the id that a verifier of
-- version 0.1 brings along; what the verifier says of itself; who calls; the cursor it sends (nulls: none); the length
-- granted; how many leases the holder can have (null: any number, and no suspension); the nonce that it presents (null:
-- none), and what the one that it is given is made from.
-- Comes out: taken with the row's id and salt, the transaction, the nonce given, and whether the row knew the one presented (false:
-- history has forgotten one renewal at least, so the cursor means nothing here and is not kept; null: it is not known, but
-- that proves nothing, because the row before may have lapsed, or because it is older than one presented before: the
-- request of a process that stood still comes late, and its response goes to nobody);
-- foreign (the id belongs to another caller); ended (the row is not renewed any more); too_many; suspended; waiting
-- (several of the holder's new rows have lapsed: live for a lease first). Only nonces given are kept: one that was
-- presented proves nothing of this history. The first eight digits of a nonce count the row's renewals: clocks differ.
-- A length once granted stays the row's: a lost response may have left it running.
CREATE FUNCTION lease_renew(new_id uuid, new_salt bytea, claim_hash bytea, own_id uuid, verifier_name text,
  verifier_version text, called_by text, held_by text, by_token uuid, by_lineage uuid[], by_owner uuid, sent_log uuid,
  sent_xid xid8, granted_ms integer, leases_max integer, presented uuid, given uuid)
RETURNS TABLE (outcome text, verifier uuid, salt bytea, remembered boolean, renewed_by xid8, nonce uuid) LANGUAGE plpgsql AS $$
DECLARE
  known lease_holders%ROWTYPE;
  held leases%ROWTYPE;
  is_known boolean;
  is_late boolean;
  kept uuid[];
  waited_since timestamptz;
BEGIN
  SELECT * INTO known FROM lease_holders h WHERE h.holder = held_by;
  IF leases_max IS NOT NULL AND known.suspended_until > now() THEN
    RETURN QUERY SELECT 'suspended', NULL::uuid, NULL::bytea, NULL::boolean, NULL::xid8, NULL::uuid;
    RETURN;
  END IF;

  UPDATE invalidation_log SET longest_lease_ms = granted_ms WHERE longest_lease_ms < granted_ms;
  -- Looked for once more behind the lock under which rows of this holder begin: of two first renewals of one claim at
  -- once, a repeat after a lost response say, the second renews what the first began.
  FOR attempt IN 1..2 LOOP
    SELECT * INTO held FROM leases l
    WHERE l.caller = called_by AND l.ended_at IS NULL AND l.released_at IS NULL
      AND ((claim_hash IS NOT NULL AND l.claim = claim_hash)
        OR (claim_hash IS NULL AND l.claim IS NULL AND l.verifier_id = own_id))
    FOR UPDATE;
    IF FOUND THEN
      is_known := presented IS NULL OR presented = ANY (held.nonces);
      is_late := coalesce(presented < held.nonces[cardinality(held.nonces)], false);
      nonce := nonce_after(held.nonces[1], given);
      kept := nonce || CASE WHEN presented = ANY (held.nonces)
        THEN held.nonces[1:array_position(held.nonces, presented)] ELSE held.nonces END;
      UPDATE leases l SET name = verifier_name, version = verifier_version, renewal = pg_current_xact_id(),
        cursor_log = CASE WHEN is_late THEN l.cursor_log WHEN is_known THEN sent_log END,
        cursor_xid = CASE WHEN is_late THEN l.cursor_xid WHEN is_known THEN sent_xid END,
        nonces = CASE WHEN is_late THEN l.nonces WHEN cardinality(kept) > 64 THEN kept[1:63] || kept[cardinality(kept)]
          ELSE kept END,
        lease_ms = greatest(l.lease_ms, granted_ms), renewed_at = now()
      WHERE l.verifier_id = held.verifier_id;
      IF known.fresh_lapses > 0 AND now() - held.created_at >= granted_ms * interval '1 millisecond' THEN
        UPDATE lease_holders h SET fresh_lapses = 0 WHERE h.holder = held_by;
      END IF;
      RETURN QUERY SELECT 'taken', held.verifier_id, held.key_salt, CASE WHEN is_known THEN true
        WHEN NOT (held.is_reborn OR is_late) THEN false END,
        pg_current_xact_id(), nonce;
      RETURN;
    END IF;
    IF attempt = 1 THEN
      PERFORM pg_advisory_xact_lock(hashtextextended('latchkey leases of ' || held_by, 0));
    END IF;
  END LOOP;

  SELECT * INTO held FROM leases l WHERE (l.caller = called_by AND l.claim = claim_hash) OR l.verifier_id = own_id;
  IF FOUND THEN
    RETURN QUERY SELECT CASE WHEN held.caller = called_by THEN 'ended' ELSE 'foreign' END, NULL::uuid, NULL::bytea, NULL::boolean, NULL::xid8, NULL::uuid;
    RETURN;
  END IF;

  IF leases_max IS NOT NULL AND (SELECT count(*) FROM leases l WHERE l.holder = held_by) >= leases_max THEN
    RETURN QUERY SELECT 'too_many', NULL::uuid, NULL::bytea, NULL::boolean, NULL::xid8, NULL::uuid;
    RETURN;
  END IF;
  IF known.fresh_lapses >= 5 AND known.fresh_lapse_at > now() - interval '10 minutes' THEN
    DELETE FROM lease_waiting w WHERE w.holder = held_by AND (w.since < now() - interval '1 hour'
      OR w.claim IN (SELECT o.claim FROM lease_waiting o WHERE o.holder = held_by ORDER BY o.since DESC OFFSET 100));
    INSERT INTO lease_waiting (holder, claim) VALUES (held_by, coalesce(claim_hash, uuid_send(own_id)))
      ON CONFLICT DO NOTHING;
    SELECT w.since INTO waited_since FROM lease_waiting w
      WHERE w.holder = held_by AND w.claim = coalesce(claim_hash, uuid_send(own_id));
    IF waited_since > now() - granted_ms * interval '1 millisecond' THEN
      RETURN QUERY SELECT 'waiting', NULL::uuid, NULL::bytea, NULL::boolean, NULL::xid8, NULL::uuid;
      RETURN;
    END IF;
    DELETE FROM lease_waiting w WHERE w.holder = held_by;
    UPDATE lease_holders h SET fresh_lapses = 0 WHERE h.holder = held_by;
  END IF;

  INSERT INTO leases (verifier_id, name, version, caller, holder, caller_token, caller_lineage, caller_owner, claim,
    key_salt, nonces, is_reborn, renewal, cursor_log, cursor_xid, lease_ms, renewed_at)
  VALUES (coalesce(own_id, new_id), verifier_name, verifier_version, called_by, held_by, by_token, by_lineage, by_owner,
    claim_hash, new_salt, ARRAY[nonce_after(NULL, given)], presented IS NOT NULL, pg_current_xact_id(), CASE WHEN presented IS NULL THEN sent_log END,
    CASE WHEN presented IS NULL THEN sent_xid END, granted_ms, now());
  RETURN QUERY SELECT 'taken', coalesce(own_id, new_id), new_salt, CASE WHEN presented IS NULL THEN true END,
    pg_current_xact_id(), nonce_after(NULL, given);
END $$;
`;

const lapse = `
-- Deletes the row of a lease that has lapsed, if it still carries the renewal that was watched; true when it did. A row
-- that lapsed before its verifier had lived for a lease is counted against its holder.
CREATE FUNCTION lease_lapse(verifier uuid, watched xid8) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
  gone leases%ROWTYPE;
BEGIN
  DELETE FROM leases WHERE verifier_id = verifier AND renewal = watched RETURNING * INTO gone;
  IF NOT FOUND THEN
    RETURN false;
  END IF;
  IF gone.released_at IS NULL AND gone.ended_at IS NULL AND gone.holder <> ''
    AND gone.renewed_at - gone.created_at < gone.lease_ms * interval '1 millisecond' THEN
    INSERT INTO lease_holders AS h (holder, fresh_lapses, fresh_lapse_at) VALUES (gone.holder, 1, now())
    ON CONFLICT (holder) DO UPDATE SET
      fresh_lapses = CASE WHEN h.fresh_lapse_at > now() - interval '10 minutes' THEN h.fresh_lapses + 1 ELSE 1 END,
      fresh_lapse_at = now();
  END IF;
  RETURN true;
END $$;
`;

const strike = `
-- A confirmation has waited out this lease, which never acknowledged, and was not ended meanwhile. The second within an hour suspends its holder for
-- ten minutes, and for twice as long as before when that was less than a day ago, a day at most. Comes out: until when,
-- if this was the one that suspended.
CREATE FUNCTION lease_strike(verifier uuid, watched xid8, held_by text) RETURNS timestamptz LANGUAGE plpgsql AS $$
DECLARE
  until timestamptz;
BEGIN
  IF EXISTS (SELECT FROM leases WHERE verifier_id = verifier AND ended_at IS NOT NULL) THEN
    RETURN NULL;
  END IF;
  DELETE FROM lease_strikes WHERE at < now() - interval '1 day';
  PERFORM pg_advisory_xact_lock(hashtextextended('latchkey leases of ' || held_by, 0));
  INSERT INTO lease_strikes (verifier_id, renewal, holder) VALUES (verifier, watched, held_by) ON CONFLICT DO NOTHING;
  IF NOT FOUND OR (SELECT count(*) FROM lease_strikes WHERE holder = held_by AND NOT counted
    AND at > now() - interval '1 hour') < 2 THEN
    RETURN NULL;
  END IF;
  UPDATE lease_strikes SET counted = true WHERE holder = held_by;
  INSERT INTO lease_holders AS h (holder, suspensions, suspended_until)
  VALUES (held_by, 1, now() + interval '10 minutes')
  ON CONFLICT (holder) DO UPDATE SET
    suspensions = CASE WHEN h.suspended_until > now() - interval '1 day' THEN least(h.suspensions + 1, 8) ELSE 1 END,
    suspended_until = now() + least(interval '1 day', interval '10 minutes' *
      CASE WHEN h.suspended_until > now() - interval '1 day' THEN power(2, least(h.suspensions, 8)) ELSE 1 END)
  RETURNING suspended_until INTO until;
  RETURN until;
END $$;
`;

const announce = `
-- Says that renewals name these keys from now on; comes out, for each, for how many milliseconds they have. One that no
-- renewal has named for an hour is new again.
CREATE FUNCTION feed_keys_announce(ids text[]) RETURNS TABLE (key text, for_ms double precision) LANGUAGE sql AS $$
  INSERT INTO feed_keys AS k (id) SELECT unnest(ids) ORDER BY 1
  ON CONFLICT (id) DO UPDATE SET seen_at = now(),
    announced_at = CASE WHEN k.seen_at > now() - interval '1 hour' THEN k.announced_at ELSE now() END
  RETURNING id, extract(epoch FROM now() - announced_at)::double precision * 1000
$$;
`;

const grants = `
GRANT SELECT, INSERT, UPDATE, DELETE ON lease_holders, lease_strikes, lease_waiting, feed_keys TO latchkey_service;
`;
