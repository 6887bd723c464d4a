// Replaces one secret while everything runs, step by step: each call does the next step, and says what to do before the next call.
//   docker compose run --rm secrets rotate NAME
import { execFileSync } from 'node:child_process';
import { createPublicKey, generateKeyPairSync, randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = process.env.SECRETS_DIR ?? '/secrets';
const AGAIN = 'Then run this command again.';
const DONE = 'That was the last step.';
const TAKEN_OVER = 'Wait ten seconds: the services take it over while they run, and say so in their logs.';
/** How many peppers a token-service accepts. */
const PEPPERS_MAX = 8;

const random = () => randomBytes(32).toString('base64url');
const ed25519 = () => generateKeyPairSync('ed25519').privateKey.export({ type: 'pkcs8', format: 'pem' });
const at = (file) => path.join(root, file);
const read = (file) => readFileSync(at(file), 'utf8');
const listIn = (file) =>
  read(file)
    .split(',')
    .map((one) => one.trim());

function write(file, text, mode = 0o400) {
  mkdirSync(path.dirname(at(file)), { recursive: true });
  writeFileSync(`${at(file)}.new`, text, { mode });
  renameSync(`${at(file)}.new`, at(file));
}

/** What follows from other secrets: addresses, public halves. */
const derive = () =>
  execFileSync(process.execPath, [fileURLToPath(new URL('make-secrets.mjs', import.meta.url))], { stdio: 'ignore' });

const rollout = (...services) => `infra/docker/rollout.sh ${services.join(' ')}`;
const inRedis = (command) =>
  `docker compose exec -T redis sh -c '(echo "AUTH $(cat /run/latchkey/password)"; echo "ACL SETUSER default ${command}") | redis-cli'`;

/** A list that one side accepts, and of which the other sends the first: at no time does one send what the other lacks. */
function credential(files, then) {
  const set = (values, last) => ({
    files: Object.fromEntries(files.map((file) => [file, values.join(',')])),
    next: [...then, last],
  });
  return [
    () => set([listIn(files[0])[0], random()], AGAIN),
    () => set(listIn(files[0]).reverse(), AGAIN),
    () => set(listIn(files[0]).slice(0, 1), DONE),
  ];
}

/** An Ed25519 key: what it has signed stays valid by its public half. */
function signing(key, retired) {
  return [
    () => {
      const variable = path.basename(retired).toUpperCase();
      if (process.env[variable])
        throw new Error(
          `${variable} is set in .env, and would lack the key that is replaced: remove it there, as it is kept in a volume`,
        );
      const publicKey = createPublicKey(read(key)).export({ type: 'spki', format: 'pem' });
      // The retired key first: what a key has signed whose public half nobody knows looks forged.
      const files = { [retired]: `${existsSync(at(retired)) ? read(retired) : ''}${publicKey}`, [key]: ed25519() };
      return { files, next: [rollout('token-service'), DONE] };
    },
  ];
}

const PEPPERS = 'token-service/token_peppers';
const RETIRED_PEPPERS = 'administrator/retired_token_peppers';
const EVENTS_SIGNING = 'token-service/events_signing_key';
const SEALING = 'jobs/jobs_sealing_key';
const ROLES = ['service', 'jobs', 'retention'];

/** By name: its steps. Each does one, and returns what comes next. */
const secrets = {
  GATEWAY_RPC_SECRET: credential(['gateway/gateway_rpc_secret', 'token-service/gateway_rpc_secret'], [TAKEN_OVER]),
  GATEWAY_PROOF_SECRET: credential(
    ['gateway/gateway_proof_secret', 'token-service/gateway_proof_secret'],
    [TAKEN_OVER],
  ),
  JOBS_RPC_SECRET: credential(['jobs/jobs_rpc_secret', 'token-service/jobs_rpc_secret'], [TAKEN_OVER]),
  USAGE_SECRET: credential(
    ['token-service/usage_secret', 'jobs/usage_secret'],
    [
      rollout('jobs', 'token-service'),
      'Wait a minute, in which every verifier renews its lease and jobs counts what it has sent.',
    ],
  ),
  TOKEN_PEPPERS: [
    () => {
      const list = listIn(PEPPERS);
      if (list.length >= PEPPERS_MAX)
        throw new Error(`there are ${list.length} peppers, at most ${PEPPERS_MAX}: finish earlier rotations first`);
      const next = ['Make a backup: from now on the new pepper is needed too.', rollout('token-service'), AGAIN];
      return { files: { [PEPPERS]: [...list, random()].join(',') }, next };
    },
    () => {
      const list = listIn(PEPPERS);
      return {
        files: { [PEPPERS]: [list.at(-1), ...list.slice(0, -1)].join(',') },
        next: [
          rollout('token-service'),
          'Wait until nothing depends on the old one: tokens, secondFactors and recoveryCodes in GET /v1/system (docs/peppers.md).',
          AGAIN,
        ],
      };
    },
    () => {
      const [current, ...retired] = listIn(PEPPERS);
      return {
        // A token-service that still needs one says so and does not start: then it has to come back.
        files: { [RETIRED_PEPPERS]: withRetired(retired).join(','), [PEPPERS]: current },
        next: [
          rollout('token-service'),
          'If it does not start, because something depends on an old one: docker compose run --rm secrets rotate TOKEN_PEPPERS back',
          DONE,
        ],
      };
    },
  ],
  EVENTS_SECRET: [
    () => ({
      files: { 'token-service/events_secret': random() },
      next: [rollout('token-service'), 'Revocations wait some seconds, until each verifier has renewed.', DONE],
    }),
  ],
  EVENTS_SIGNING_KEY: [
    () => ({
      files: { [EVENTS_SIGNING]: [listIn(EVENTS_SIGNING)[0], random()].join(',') },
      next: [rollout('token-service'), 'Wait for one lease (LEASE_MS): all verifiers get the next key.', AGAIN],
    }),
    () => ({
      files: { [EVENTS_SIGNING]: listIn(EVENTS_SIGNING).at(-1) },
      next: [rollout('token-service'), DONE],
    }),
  ],
  JOBS_SEALING_KEY: [
    () => ({ files: { [SEALING]: [listIn(SEALING)[0], random()].join(',') }, next: [rollout('jobs'), AGAIN] }),
    () => ({
      files: { [SEALING]: listIn(SEALING).reverse().join(',') },
      next: [rollout('token-service'), 'Wait an hour: codes that were sent before expire.', AGAIN],
    }),
    () => ({ files: { [SEALING]: listIn(SEALING)[0] }, next: [rollout('jobs'), DONE] }),
  ],
  AUDIT_SIGNING_KEY: signing('token-service/audit_signing_key', 'token-service/audit_retired_keys'),
  RECEIPT_SIGNING_KEY: signing('token-service/receipt_signing_key', 'token-service/receipt_retired_keys'),
  POSTGRES_PASSWORDS: [
    () => ({
      files: Object.fromEntries(ROLES.map((role) => [`migrate/password_${role}`, random()])),
      next: ['At once, as no new connection can be opened until then: docker compose run --rm migrate', DONE],
    }),
  ],
  REDIS_PASSWORD: [
    () => ({
      files: { 'redis/password_next': random() },
      next: [inRedis('>$(cat /run/latchkey/password_next)'), 'Do not restart Redis until the next step.', AGAIN],
    }),
    () => ({
      files: { 'redis/password_previous': read('redis/password'), 'redis/password': read('redis/password_next') },
      next: [TAKEN_OVER, inRedis('<$(cat /run/latchkey/password_previous)'), AGAIN],
    }),
    () => ({ files: { 'redis/password_next': '', 'redis/password_previous': '' }, next: [DONE] }),
  ],
};

/** Those that were retired, each once. */
function withRetired(peppers) {
  const before = existsSync(at(RETIRED_PEPPERS)) ? listIn(RETIRED_PEPPERS) : [];
  return [...new Set([...before, ...peppers])].filter(Boolean);
}

/** Writes what a step is made of, and what follows from it. */
function apply(files) {
  for (const [file, text] of Object.entries(files)) {
    // PostgreSQL and Redis read theirs as users of their own.
    if (text !== '') write(file, text, file.startsWith('redis/') ? 0o444 : 0o400);
    else rmSync(at(file), { force: true });
  }
  derive();
}

/** @param {string[]} args the name of the secret, and `back` for TOKEN_PEPPERS */
export function rotate(args) {
  const [name = '', ...more] = args;
  const steps = secrets[name];
  const isBack = name === 'TOKEN_PEPPERS' && more.join() === 'back';
  if (!steps || (more.length > 0 && !isBack)) {
    console.error(
      `rotate: name one of ${Object.keys(secrets).join(', ')}.\n` +
        'LEDGER_KEY stays, because it authenticates the ledger. What is not made here is changed in .env.',
    );
    process.exit(2);
  }
  const given = { REDIS_PASSWORD: 'REDIS_URL' }[name] ?? name;
  if (process.env[given]) throw new Error(`${given} is set in .env: change it there`);
  if (isBack) {
    apply({ [PEPPERS]: [...new Set([...listIn(PEPPERS), ...withRetired([])])].slice(0, PEPPERS_MAX).join(',') });
    console.log(`TOKEN_PEPPERS: the retired ones verify again. Next:\n  ${rollout('token-service')}`);
    return;
  }
  // Written before the secrets, and applied again by the next call when this one is interrupted: no step is left out, repeated
  // or done with other values.
  const progress = `administrator/rotation/${name}`;
  const state = existsSync(at(progress)) ? JSON.parse(read(progress)) : { step: 0 };
  const step = state.files ? state : { step: state.step, ...steps[state.step]() };
  write(progress, JSON.stringify(step));
  apply(step.files);
  if (step.step + 1 === steps.length) rmSync(at(progress), { force: true });
  else write(progress, JSON.stringify({ step: step.step + 1 }));
  console.log(`${name}: step ${step.step + 1} of ${steps.length} is written. Next:`);
  for (const line of step.next) console.log(`  ${line}`);
}
