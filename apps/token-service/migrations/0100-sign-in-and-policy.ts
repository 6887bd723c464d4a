import type { MigrationInterface, QueryRunner } from 'typeorm';

/** Second factors, another sign-in service, password resets, the policy for tokens, and the scopes last declared. */
export class SignInAndPolicy0000000000100 implements MigrationInterface {
  name = 'SignInAndPolicy0000000000100';

  async up(db: QueryRunner): Promise<void> {
    for (const part of [signIn, policy, declarations, grants]) await db.query(part);
  }

  async down(): Promise<void> {
    throw new Error('migrations go forward only: restore a backup instead');
  }
}

const signIn = `
CREATE TABLE second_factors (
  user_id uuid PRIMARY KEY REFERENCES users,
  sealed_secret bytea NOT NULL,
  confirmed_at timestamptz(3),
  last_step bigint NOT NULL DEFAULT 0
);
COMMENT ON COLUMN second_factors.sealed_secret IS 'AES-256-GCM under a key derived from a pepper';
COMMENT ON COLUMN second_factors.last_step IS 'time step of the last code taken: no code is taken twice';

CREATE TABLE password_resets (
  user_id uuid PRIMARY KEY REFERENCES users,
  hash bytea NOT NULL CHECK (octet_length(hash) = 32),
  expires_at timestamptz(3) NOT NULL
);
COMMENT ON COLUMN password_resets.hash IS 'SHA-256 of the code, which is 160 random bits';

CREATE TABLE sign_in_identities (
  issuer text NOT NULL,
  subject text NOT NULL,
  user_id uuid NOT NULL REFERENCES users,
  created_at timestamptz(3) NOT NULL,
  PRIMARY KEY (issuer, subject)
);
CREATE INDEX sign_in_identities_by_user ON sign_in_identities (user_id);
COMMENT ON TABLE sign_in_identities IS 'who a person is at another sign-in service (OpenID Connect)';
`;

const policy = `
CREATE TABLE policy (
  single boolean PRIMARY KEY DEFAULT true CHECK (single),
  lifetime_seconds_max bigint,
  expiry_required boolean NOT NULL DEFAULT false,
  allowed_ip_prefixes text[] NOT NULL DEFAULT '{}',
  idle_days integer
);
INSERT INTO policy DEFAULT VALUES;
`;

const declarations = `
CREATE TABLE scope_declarations (
  single boolean PRIMARY KEY DEFAULT true CHECK (single),
  digest bytea NOT NULL
);
COMMENT ON TABLE scope_declarations IS 'SHA-256 of the scopes as last declared: another one at a start makes verifiers forget everything';
`;

const grants = `
GRANT SELECT, INSERT, UPDATE, DELETE ON second_factors, password_resets, sign_in_identities TO latchkey_service;
GRANT SELECT, UPDATE ON policy TO latchkey_service;
GRANT SELECT, INSERT, UPDATE ON scope_declarations TO latchkey_service;
`;
