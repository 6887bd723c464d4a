import type { MigrationInterface, QueryRunner } from 'typeorm';

/** Every table of every service, the roles that the services act under, and what each of them may do. */
export class Base0000000000001 implements MigrationInterface {
  name = 'Base0000000000001';

  async up(db: QueryRunner): Promise<void> {
    for (const part of [roles, people, tokens, audit, invalidations, usage, grants]) await db.query(part);
    await db.query('SELECT audit_make_partitions(24)');
  }

  async down(): Promise<void> {
    throw new Error('migrations go forward only: restore a backup instead');
  }
}

/**
 * Group roles are cluster-wide, so another database of the same cluster may be making them at this moment: whoever
 * comes second finds them made.
 */
const roles = `
DO $$
DECLARE
  wanted text;
BEGIN
  FOREACH wanted IN ARRAY ARRAY['latchkey_service', 'latchkey_jobs', 'latchkey_retention'] LOOP
    BEGIN
      IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = wanted) THEN
        EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);
      END IF;
    EXCEPTION WHEN duplicate_object OR unique_violation THEN
      NULL; -- made by another migration between the question and the answer
    END;
  END LOOP;
END $$;
CREATE EXTENSION IF NOT EXISTS pg_trgm;
`;

const people = `
CREATE TABLE users (
  id uuid PRIMARY KEY,
  email text NOT NULL,
  name text NOT NULL,
  role text NOT NULL CHECK (role IN ('admin', 'member')),
  password_hash text,
  disabled_at timestamptz(3),
  created_at timestamptz(3) NOT NULL,
  CONSTRAINT users_email_once UNIQUE (email)
);
CREATE INDEX users_by_time ON users (created_at DESC, id DESC);
CREATE INDEX users_administrators ON users (id) WHERE role = 'admin' AND disabled_at IS NULL;

CREATE TABLE sessions (
  id uuid PRIMARY KEY,
  user_id uuid NOT NULL REFERENCES users,
  hash bytea NOT NULL,
  ip text NOT NULL,
  user_agent text NOT NULL,
  created_at timestamptz(3) NOT NULL,
  seen_at timestamptz(3) NOT NULL,
  expires_at timestamptz(3) NOT NULL,
  CONSTRAINT sessions_hash_once UNIQUE (hash)
);
CREATE INDEX sessions_by_user ON sessions (user_id);
CREATE INDEX sessions_by_end ON sessions (expires_at);
COMMENT ON COLUMN sessions.hash IS 'SHA-256 of the cookie''s value, which is 256 random bits';

CREATE TABLE sign_in_failures (
  subject bytea PRIMARY KEY,
  count integer NOT NULL,
  since timestamptz(3) NOT NULL
);
CREATE INDEX sign_in_failures_by_time ON sign_in_failures (since);
COMMENT ON COLUMN sign_in_failures.subject IS 'SHA-256 of the e-mail address typed and the address it came from';

CREATE TABLE projects (
  id uuid PRIMARY KEY,
  name text NOT NULL,
  description text NOT NULL DEFAULT '',
  closed_at timestamptz(3),
  created_at timestamptz(3) NOT NULL
);
CREATE INDEX projects_by_time ON projects (created_at DESC, id DESC);

CREATE TABLE members (
  project_id uuid NOT NULL REFERENCES projects,
  user_id uuid NOT NULL REFERENCES users,
  role text NOT NULL CHECK (role IN ('owner', 'editor', 'viewer')),
  created_at timestamptz(3) NOT NULL,
  PRIMARY KEY (project_id, user_id)
);
CREATE INDEX members_by_user ON members (user_id) INCLUDE (project_id, role);
`;

const tokens = `
CREATE TABLE tokens (
  id uuid PRIMARY KEY,
  hash bytea NOT NULL CHECK (octet_length(hash) = 32),
  kind text NOT NULL CHECK (kind IN ('pat', 'prj')),
  name text NOT NULL,
  description text NOT NULL DEFAULT '',
  start text NOT NULL,
  owner_user_id uuid REFERENCES users,
  project_id uuid REFERENCES projects,
  owner_id uuid NOT NULL GENERATED ALWAYS AS (COALESCE(owner_user_id, project_id)) STORED,
  created_by_type text NOT NULL CHECK (created_by_type IN ('user', 'token', 'system')),
  created_by_id uuid,
  ancestors uuid[] NOT NULL DEFAULT '{}',
  scopes text[] NOT NULL,
  allowed_ips text[] NOT NULL DEFAULT '{}',
  rate_limit integer,
  rate_window_seconds integer,
  metadata jsonb NOT NULL DEFAULT '{}',
  created_at timestamptz(3) NOT NULL,
  expires_at timestamptz(3),
  overlap_ends_at timestamptz(3),
  ends_at timestamptz(3) GENERATED ALWAYS AS (LEAST(expires_at, overlap_ends_at)) STORED,
  expiry_recorded_at timestamptz(3),
  disabled_at timestamptz(3),
  revoked_at timestamptz(3),
  revoked_by_type text CHECK (revoked_by_type IN ('user', 'token', 'system')),
  revoked_by_id uuid,
  revocation_reason text,
  revocation_comment text,
  rotated_from uuid REFERENCES tokens,
  rotated_to uuid,
  invalidation_id uuid,
  receipt jsonb,
  CONSTRAINT tokens_hash_once UNIQUE (hash),
  CONSTRAINT tokens_successor_once UNIQUE (rotated_from),
  CONSTRAINT tokens_one_owner CHECK ((kind = 'pat') = (owner_user_id IS NOT NULL) AND (kind = 'prj') = (project_id IS NOT NULL)),
  CONSTRAINT tokens_rate_whole CHECK ((rate_limit IS NULL) = (rate_window_seconds IS NULL)),
  CONSTRAINT tokens_revocation_whole CHECK ((revoked_at IS NULL) = (revocation_reason IS NULL))
);
CREATE INDEX tokens_by_time ON tokens (created_at DESC, id DESC);
CREATE INDEX tokens_by_owner ON tokens (owner_id, created_at DESC, id DESC);
CREATE INDEX tokens_by_ancestor ON tokens USING gin (ancestors) WHERE ancestors <> '{}';
CREATE INDEX tokens_by_name ON tokens USING gin (lower(name) gin_trgm_ops);
CREATE INDEX tokens_by_start ON tokens (start text_pattern_ops);
CREATE INDEX tokens_expiry_due ON tokens (expires_at) WHERE revoked_at IS NULL AND expiry_recorded_at IS NULL AND expires_at IS NOT NULL;
CREATE INDEX tokens_overlap_due ON tokens (overlap_ends_at) WHERE revoked_at IS NULL AND overlap_ends_at IS NOT NULL;
COMMENT ON COLUMN tokens.hash IS 'HMAC-SHA-256 under a pepper of the SHA-256 of the secret; the secret itself is nowhere';
COMMENT ON COLUMN tokens.ancestors IS 'the tokens that this one was made with, nearest first; it dies with any of them';
COMMENT ON COLUMN tokens.ends_at IS 'when it stops by itself: its own end, or the end of its overlap with a successor';
COMMENT ON COLUMN tokens.invalidation_id IS 'of the last change that narrowed it; receipt says how that was confirmed';

CREATE TABLE idempotency_keys (
  actor text NOT NULL,
  key text NOT NULL,
  request_hash bytea NOT NULL,
  token_id uuid NOT NULL,
  created_at timestamptz(3) NOT NULL,
  PRIMARY KEY (actor, key)
);
CREATE INDEX idempotency_keys_by_time ON idempotency_keys (created_at);
`;

const audit = `
CREATE TABLE audit_events (
  id uuid NOT NULL,
  at timestamptz(3) NOT NULL,
  actor_type text NOT NULL CHECK (actor_type IN ('user', 'token', 'system')),
  actor_id uuid,
  actor_name text NOT NULL,
  action text NOT NULL,
  token_id uuid,
  project_id uuid,
  subject_type text,
  subject_id text,
  subject_name text,
  ip text,
  user_agent text,
  request_id text,
  details jsonb NOT NULL DEFAULT '{}',
  xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
  PRIMARY KEY (id, at)
) PARTITION BY RANGE (at);
CREATE INDEX audit_events_by_time ON audit_events (at DESC, id DESC);
CREATE INDEX audit_events_by_token ON audit_events (token_id, at DESC, id DESC) WHERE token_id IS NOT NULL;
CREATE INDEX audit_events_by_project ON audit_events (project_id, at DESC, id DESC) WHERE project_id IS NOT NULL;
CREATE INDEX audit_events_by_actor ON audit_events (actor_id, at DESC, id DESC) WHERE actor_id IS NOT NULL;
CREATE INDEX audit_events_by_action ON audit_events (action, at DESC, id DESC);
CREATE INDEX audit_events_by_xid ON audit_events (xid);
COMMENT ON COLUMN audit_events.xid IS 'transaction that wrote it: sealing goes on from where all older transactions have ended';

CREATE TABLE audit_links (
  seq bigint PRIMARY KEY,
  event_id uuid NOT NULL,
  event_at timestamptz(3) NOT NULL,
  hash bytea NOT NULL CHECK (octet_length(hash) = 32),
  CONSTRAINT audit_links_event_once UNIQUE (event_id)
);

CREATE TABLE audit_checkpoints (
  seq bigint PRIMARY KEY,
  hash bytea NOT NULL,
  at timestamptz(3) NOT NULL,
  public_key text NOT NULL,
  signature bytea NOT NULL
);

CREATE FUNCTION audit_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'the audit log is append-only: % on % is refused', TG_OP, TG_TABLE_NAME
    USING ERRCODE = 'insufficient_privilege', HINT = 'Old months are dropped whole by audit_drop_partitions().';
END $$;

-- Row triggers are cloned to every partition, so that a partition named directly is guarded too.
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON audit_events FOR EACH ROW EXECUTE FUNCTION audit_refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON audit_links FOR EACH ROW EXECUTE FUNCTION audit_refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON audit_checkpoints FOR EACH ROW EXECUTE FUNCTION audit_refuse_change();
CREATE TRIGGER never_emptied BEFORE TRUNCATE ON audit_events FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse_change();
CREATE TRIGGER never_emptied BEFORE TRUNCATE ON audit_links FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse_change();
CREATE TRIGGER never_emptied BEFORE TRUNCATE ON audit_checkpoints FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse_change();

-- What no month takes lands here, so that an insert never fails for want of a partition.
CREATE TABLE audit_events_default PARTITION OF audit_events DEFAULT;
CREATE TRIGGER never_emptied BEFORE TRUNCATE ON audit_events_default FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse_change();

-- Makes the partitions of this month and the given number of months ahead, and answers how many were new. A month
-- whose events already lie in the default partition is left there.
CREATE FUNCTION audit_make_partitions(months_ahead integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
DECLARE
  month timestamptz := date_trunc('month', now(), 'UTC');
  partition text;
  made integer := 0;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('latchkey audit partitions', 0));
  FOR ahead IN 0..months_ahead LOOP
    partition := 'audit_events_' || to_char(month AT TIME ZONE 'UTC', 'YYYY_MM');
    IF to_regclass('public.' || partition) IS NULL THEN
      BEGIN
        EXECUTE format('CREATE TABLE public.%I PARTITION OF public.audit_events FOR VALUES FROM (%L) TO (%L)',
          partition, month, (month AT TIME ZONE 'UTC' + interval '1 month') AT TIME ZONE 'UTC');
        EXECUTE format('CREATE TRIGGER never_emptied BEFORE TRUNCATE ON public.%I FOR EACH STATEMENT EXECUTE FUNCTION public.audit_refuse_change()', partition);
        made := made + 1;
      EXCEPTION WHEN check_violation THEN
        RAISE WARNING 'events of % stay in the default partition', partition;
      END;
    END IF;
    month := (month AT TIME ZONE 'UTC' + interval '1 month') AT TIME ZONE 'UTC';
  END LOOP;
  RETURN made;
END $$;

-- Drops every monthly partition that ended before the given moment, and answers how many. For latchkey_retention alone.
CREATE FUNCTION audit_drop_partitions(ended_before timestamptz) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
DECLARE
  partition text;
  dropped integer := 0;
BEGIN
  IF ended_before > now() - interval '31 days' THEN
    RAISE EXCEPTION 'audit events are kept for at least 31 days';
  END IF;
  FOR partition IN
    SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'public.audit_events'::regclass AND c.relname ~ '^audit_events_\\d{4}_\\d{2}$'
      AND (to_timestamp(right(c.relname, 7), 'YYYY_MM')::timestamp AT TIME ZONE 'UTC') + interval '1 month' <= ended_before
  LOOP
    EXECUTE format('DROP TABLE public.%I', partition);
    dropped := dropped + 1;
  END LOOP;
  RETURN dropped;
END $$;
REVOKE EXECUTE ON FUNCTION audit_make_partitions(integer), audit_drop_partitions(timestamptz) FROM PUBLIC;
`;

const invalidations = `
CREATE TABLE invalidation_log (
  single boolean PRIMARY KEY DEFAULT true CHECK (single),
  log uuid NOT NULL,
  system_identifier bigint NOT NULL
);
INSERT INTO invalidation_log (log, system_identifier) SELECT gen_random_uuid(), system_identifier FROM pg_control_system();

CREATE TABLE invalidations (
  id uuid PRIMARY KEY,
  xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
  kind text NOT NULL CHECK (kind IN ('token', 'owner', 'project', 'everything', 'misses')),
  subject text NOT NULL,
  cut boolean NOT NULL,
  created_at timestamptz(3) NOT NULL
);
CREATE INDEX invalidations_by_xid ON invalidations (xid);
CREATE INDEX invalidations_by_time ON invalidations (created_at);

CREATE TABLE leases (
  verifier_id uuid PRIMARY KEY,
  name text NOT NULL,
  caller text NOT NULL,
  renewal xid8 NOT NULL,
  cursor_log uuid,
  cursor_xid xid8,
  lease_ms integer NOT NULL,
  renewed_at timestamptz(3) NOT NULL
);
CREATE INDEX leases_by_caller ON leases (caller);
`;

const usage = `
CREATE TABLE usage_hourly (
  token_id uuid NOT NULL,
  hour timestamptz NOT NULL,
  route text NOT NULL,
  status text NOT NULL,
  count bigint NOT NULL,
  PRIMARY KEY (token_id, hour, route, status)
);
CREATE TABLE usage_callers (
  token_id uuid NOT NULL,
  ip text NOT NULL,
  user_agent text NOT NULL,
  first_seen timestamptz(3) NOT NULL,
  last_seen timestamptz(3) NOT NULL,
  count bigint NOT NULL,
  PRIMARY KEY (token_id, ip, user_agent)
);
CREATE TABLE token_usage (
  token_id uuid PRIMARY KEY,
  last_used_at timestamptz(3) NOT NULL,
  last_used_ip text,
  usage_count bigint NOT NULL
);
CREATE TABLE usage_batches (
  verifier uuid NOT NULL,
  sequence bigint NOT NULL,
  at timestamptz(3) NOT NULL DEFAULT now(),
  PRIMARY KEY (verifier, sequence)
);
CREATE INDEX usage_batches_by_time ON usage_batches (at);
CREATE TABLE denials (
  request_id text PRIMARY KEY,
  at timestamptz(3) NOT NULL,
  reason text NOT NULL,
  token_id uuid,
  route text NOT NULL,
  method text NOT NULL,
  ip text NOT NULL
);
CREATE INDEX denials_by_time ON denials (at);
`;

const grants = `
GRANT SELECT, INSERT, UPDATE ON users, projects, tokens TO latchkey_service;
GRANT SELECT, INSERT, UPDATE, DELETE ON sessions, sign_in_failures, members, idempotency_keys, leases TO latchkey_service;
GRANT SELECT, INSERT ON audit_events, audit_links, audit_checkpoints TO latchkey_service;
GRANT SELECT, INSERT, DELETE ON invalidations TO latchkey_service;
GRANT SELECT, UPDATE ON invalidation_log TO latchkey_service;
GRANT SELECT ON usage_hourly, usage_callers, token_usage, denials TO latchkey_service;
GRANT EXECUTE ON FUNCTION audit_make_partitions(integer) TO latchkey_service;

GRANT SELECT, INSERT, UPDATE, DELETE ON usage_hourly, usage_callers, token_usage, usage_batches, denials TO latchkey_jobs;
GRANT SELECT ON projects, members TO latchkey_jobs;
GRANT SELECT (id, email, name, role, disabled_at, created_at) ON users TO latchkey_jobs;
GRANT SELECT (id, kind, name, start, owner_user_id, project_id, owner_id, created_by_type, created_by_id, ancestors, scopes,
  created_at, expires_at, overlap_ends_at, ends_at, expiry_recorded_at, disabled_at, revoked_at, revocation_reason,
  rotated_from, rotated_to) ON tokens TO latchkey_jobs;
GRANT SELECT, INSERT ON audit_events TO latchkey_jobs;

GRANT SELECT ON audit_events, audit_links, audit_checkpoints TO latchkey_retention;
GRANT EXECUTE ON FUNCTION audit_make_partitions(integer), audit_drop_partitions(timestamptz) TO latchkey_retention;
`;
