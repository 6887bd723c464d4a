import { randomBytes } from 'node:crypto';

/** The secrets by which services authenticate each other, as environment variables of each service. */
export interface TestCredentials {
  readonly tokenService: Readonly<Record<'GATEWAY_RPC_SECRET' | 'JOBS_RPC_SECRET' | 'GATEWAY_PROOF_SECRET', string>>;
  readonly gateway: Readonly<Record<'GATEWAY_RPC_SECRET' | 'GATEWAY_PROOF_SECRET', string>>;
  readonly jobs: Readonly<Record<'JOBS_RPC_SECRET', string>>;
}

/** New ones, for one token-service with its gateways and jobs. */
export function testCredentials(): TestCredentials {
  const secret = () => randomBytes(32).toString('base64url');
  const gateway = { GATEWAY_RPC_SECRET: secret(), GATEWAY_PROOF_SECRET: secret() };
  const jobs = { JOBS_RPC_SECRET: secret() };
  return { tokenService: { ...gateway, ...jobs }, gateway, jobs };
}
