import type { MigrationInterface, QueryRunner } from 'typeorm';

/** All locks of a change in one statement. */
export class LocksInOrder0000000000123 implements MigrationInterface {
  name = 'LocksInOrder0000000000123';

  async up(db: QueryRunner): Promise<void> {
    await db.query(lockInOrder);
  }

  async down(): Promise<void> {
    throw new Error('migrations go forward only: restore a backup instead');
  }
}

const table = (name: string) => `
  FOREACH one IN ARRAY ${name}_rows LOOP
    IF one = ANY (change) THEN PERFORM 1 FROM ${name} WHERE id = one FOR NO KEY UPDATE;
    ELSE PERFORM 1 FROM ${name} WHERE id = one FOR SHARE; END IF;
  END LOOP;`;

const lockInOrder = `
-- Locks rows one after another: people, projects, sessions, tokens, each in the order given, which is that of their ids.
-- Those of \`change\` are locked for a change, the others against one. Rows that are not there are passed over.
CREATE FUNCTION lock_in_order(change uuid[], users_rows uuid[], projects_rows uuid[], sessions_rows uuid[], tokens_rows uuid[])
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  one uuid;
BEGIN${['users', 'projects', 'sessions', 'tokens'].map(table).join('')}
END $$;
`;
