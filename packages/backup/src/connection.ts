import { Client } from 'pg';
import { BackupError, reasonOf } from './errors.js';

/** So that text has one form on every server, and no setting of the role ends a long transaction. */
const SESSION = `SET client_encoding = 'UTF8'; SET timezone = 'UTC'; SET datestyle = 'ISO, YMD'; SET intervalstyle = 'postgres';
SET bytea_output = 'hex'; SET extra_float_digits = 1; SET statement_timeout = 0; SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0; SET row_security = off`;

/** @throws BackupError naming the address when PostgreSQL cannot be reached */
export async function connect(url: string): Promise<Client> {
  const client = new Client({
    connectionString: url,
    application_name: 'latchkey-backup',
    connectionTimeoutMillis: 10_000,
  });
  client.on('error', () => undefined); // the query that runs then fails too
  try {
    await client.connect();
  } catch (error) {
    throw new BackupError(`PostgreSQL at ${placeOf(url)} cannot be reached: ${reasonOf(error)}; check that it runs`);
  }
  await client.query(SESSION);
  return client;
}

/** Host, port and database, without the password. */
export function placeOf(url: string): string {
  const { host, pathname } = new URL(url);
  return `${host}${pathname}`;
}
