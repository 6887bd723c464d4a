import type { MigrationInterface, QueryRunner } from 'typeorm';

/** Notices and their deliveries, the way to a SIEM, and an audit chain that stays provable when its head is retired. */
export class NoticesAndChain0000000000200 implements MigrationInterface {
  name = 'NoticesAndChain0000000000200';

  async up(db: QueryRunner): Promise<void> {
    for (const part of [notices, siem, usage, chain, retention, grants]) await db.query(part);
  }

  async down(): Promise<void> {
    throw new Error('migrations go forward only: restore a backup instead');
  }
}

const notices = `
CREATE TABLE notices (
  id uuid PRIMARY KEY,
  key text NOT NULL,
  kind text NOT NULL,
  token_id uuid NOT NULL,
  at timestamptz(3) NOT NULL DEFAULT now(),
  details jsonb NOT NULL DEFAULT '{}',
  CONSTRAINT notices_once UNIQUE (key)
);
CREATE INDEX notices_by_time ON notices (at);
COMMENT ON COLUMN notices.key IS 'says which event it is of: raised again, it is the same notice';

CREATE TABLE notice_deliveries (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  notice_id uuid NOT NULL REFERENCES notices ON DELETE CASCADE,
  user_id uuid NOT NULL,
  channel text NOT NULL CHECK (channel IN ('email', 'webhook')),
  state text NOT NULL DEFAULT 'due' CHECK (state IN ('due', 'sent', 'dead')),
  attempts integer NOT NULL DEFAULT 0,
  next_at timestamptz(3) NOT NULL DEFAULT now(),
  sent_at timestamptz(3),
  last_error text,
  CONSTRAINT notice_deliveries_once UNIQUE (notice_id, user_id, channel)
);
CREATE INDEX notice_deliveries_due ON notice_deliveries (next_at) WHERE state = 'due';
CREATE INDEX notice_deliveries_dead ON notice_deliveries (next_at) WHERE state = 'dead';

-- What a person wants to hear; without a row: everything.
CREATE TABLE notice_choices (
  user_id uuid NOT NULL REFERENCES users,
  kind text NOT NULL,
  email boolean NOT NULL,
  webhook boolean NOT NULL,
  PRIMARY KEY (user_id, kind)
);

-- How far a job has looked: a moment, or a place in the audit chain.
CREATE TABLE notice_marks (
  name text PRIMARY KEY,
  at timestamptz(3),
  seq bigint
);
`;

const siem = `
CREATE TABLE siem_batches (
  from_seq bigint PRIMARY KEY,
  to_seq bigint NOT NULL,
  state text NOT NULL DEFAULT 'due' CHECK (state IN ('due', 'sent', 'dead')),
  attempts integer NOT NULL DEFAULT 0,
  next_at timestamptz(3) NOT NULL DEFAULT now(),
  last_error text
);
CREATE INDEX siem_batches_due ON siem_batches (from_seq) WHERE state = 'due';
CREATE INDEX siem_batches_end ON siem_batches (to_seq);
CREATE INDEX siem_batches_dead ON siem_batches (from_seq) WHERE state = 'dead';
`;

const usage = `
CREATE INDEX usage_hourly_by_hour ON usage_hourly USING brin (hour);
CREATE INDEX usage_callers_by_time ON usage_callers (last_seen);
`;

const chain = `
ALTER TABLE audit_checkpoints
  ADD COLUMN kind text NOT NULL DEFAULT 'sealed' CHECK (kind IN ('sealed', 'retired')),
  DROP CONSTRAINT audit_checkpoints_pkey,
  ADD PRIMARY KEY (seq, kind);
COMMENT ON COLUMN audit_checkpoints.kind IS 'retired: everything up to seq was removed by the retention rule; part of what is signed';
`;

/**
 * Retention removes a whole head of the chain: every event up to a place that the token-service has signed as retired.
 * Events are dropped month by month; the few of a dropped month that were sealed after that place go on living in the
 * default partition until the next time.
 */
const retention = `
CREATE OR REPLACE FUNCTION audit_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  -- The setting alone opens nothing: audit_retire() runs as the owner, whom no service signs in as.
  IF TG_OP = 'DELETE' AND current_setting('latchkey.retiring', true) = 'on'
    AND current_user = (SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = TG_RELID) THEN
    RETURN OLD;
  END IF;
  RAISE EXCEPTION 'the audit log is append-only: % on % is refused', TG_OP, TG_TABLE_NAME
    USING ERRCODE = 'insufficient_privilege', HINT = 'Old events are removed by retention alone: see audit_retire().';
END $$;

DROP FUNCTION audit_drop_partitions(timestamptz);

-- In: nothing but what is signed: the newest checkpoint of the kind 'retired'. Removes the events and links up to its
-- place, and answers how many links went. Repeating it is harmless. For latchkey_retention alone.
CREATE FUNCTION audit_retire() RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
DECLARE
  through bigint;
  partition text;
  stays boolean;
  gone bigint;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('latchkey audit partitions', 0));
  SELECT max(seq) INTO through FROM public.audit_checkpoints WHERE kind = 'retired';
  IF through IS NULL THEN RETURN 0; END IF;
  IF EXISTS (SELECT FROM public.audit_links WHERE seq <= through AND event_at > now() - interval '31 days') THEN
    RAISE EXCEPTION 'audit events are kept for at least 31 days';
  END IF;
  PERFORM set_config('latchkey.retiring', 'on', true);
  FOR partition IN
    SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'public.audit_events'::regclass AND c.relname ~ '^audit_events_\\d{4}_\\d{2}$'
      AND (to_timestamp(right(c.relname, 7), 'YYYY_MM')::timestamp + interval '1 month') AT TIME ZONE 'UTC' <= now() - interval '31 days'
  LOOP
    -- A month goes when it holds something retired, or nothing at all; what was sealed after the place stays.
    EXECUTE format('SELECT EXISTS (SELECT FROM public.%1$I) AND NOT EXISTS (SELECT FROM public.%1$I e JOIN public.audit_links l
      ON l.event_id = e.id WHERE l.seq <= $1)', partition) INTO stays USING through;
    CONTINUE WHEN stays;
    EXECUTE format('ALTER TABLE public.audit_events DETACH PARTITION public.%I', partition);
    EXECUTE format('INSERT INTO public.audit_events SELECT e.* FROM public.%I e
      WHERE NOT EXISTS (SELECT FROM public.audit_links l WHERE l.event_id = e.id AND l.seq <= $1)', partition) USING through;
    EXECUTE format('DROP TABLE public.%I', partition);
  END LOOP;
  DELETE FROM public.audit_events_default e USING public.audit_links l WHERE l.event_id = e.id AND l.seq <= through;
  DELETE FROM public.audit_links WHERE seq <= through;
  GET DIAGNOSTICS gone = ROW_COUNT;
  DELETE FROM public.audit_checkpoints WHERE seq < through;
  RETURN gone;
END $$;
REVOKE EXECUTE ON FUNCTION audit_retire() FROM PUBLIC;
`;

const grants = `
GRANT SELECT, INSERT, UPDATE, DELETE ON notices, notice_deliveries, notice_marks, siem_batches TO latchkey_jobs;
GRANT SELECT ON notice_choices, audit_links TO latchkey_jobs;
GRANT SELECT, INSERT, UPDATE, DELETE ON notice_choices TO latchkey_service;
GRANT SELECT ON siem_batches, notices, notice_deliveries TO latchkey_service;
GRANT EXECUTE ON FUNCTION audit_retire() TO latchkey_retention;
REVOKE INSERT ON audit_events FROM latchkey_jobs;
`;
