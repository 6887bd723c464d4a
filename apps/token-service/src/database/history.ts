/**
 * Identifies this database: it changes with a restore into another server (system identifier), a restore to an earlier time
 * or a failover (timeline), a restore into another database, or into the same one (the table's own file). A data folder
 * restored in place changes none of them: only the start time of the server differs.
 */
export const INCARNATION = `(SELECT c.system_identifier || '/' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8) || '/' ||
  (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()) || '/' ||
  pg_relation_filenode('invalidation_log') FROM pg_control_system() c)`;

/** The file of the log's table, which a restore into the same database replaces. Cheap: rows that allow access have it. */
export const LOG_FILE = `pg_relation_filenode('invalidation_log'::regclass)::text`;

/** When this server started. */
export const STARTED = 'pg_postmaster_start_time()';

/**
 * The history that this database is in: the log, and the start of its server as last recorded, not the actual one; while
 * `IS_CURRENT`, both are the same. Of the row `l` of invalidation_log.
 */
export const HISTORY_ID = `(l.log || '/' || coalesce(extract(epoch FROM l.postmaster_started_at)::text, ''))`;
export const HISTORY = `${HISTORY_ID} AS history`;

/** Whether that history was begun in this database and its server has not started since. */
export const IS_CURRENT = `(l.incarnation = ${INCARNATION} AND l.postmaster_started_at IS NOT DISTINCT FROM ${STARTED})`;
