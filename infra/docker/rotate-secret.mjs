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
function credential(files, next) {
  const set = (values) => {
    for (const file of files) write(file, values.join(','));
    return next;
  };
  return [
    () => [...set([...listIn(files[0]), random()].slice(-2)), AGAIN],
    () => [...set(listIn(files[0]).reverse()), AGAIN],
    () => [...set(listIn(files[0]).slice(0, 1)), DONE],
  ];
}

/** An Ed25519 key: what it has signed stays valid by its public half. */
function signing(key, retired) {
  return [
    () => {
      const publicKey = createPublicKey(read(key)).export({ type: 'spki', format: 'pem' });
      // First: what a key has signed whose public half nobody knows looks forged.
      write(retired, `${existsSync(at(retired)) ? read(retired) : ''}${publicKey}`);
      write(key, ed25519());
      return [rollout('token-service'), DONE];
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
      write(PEPPERS, [...list, random()].join(','));
      return ['Make a backup: from now on the new pepper is needed too.', rollout('token-service'), AGAIN];
    },
    () => {
      const list = listIn(PEPPERS);
      write(PEPPERS, [list.at(-1), ...list.slice(0, -1)].join(','));
      return [
        rollout('token-service'),
        'Wait until nothing depends on the old one: tokens, secondFactors and recoveryCodes in GET /v1/system (docs/peppers.md).',
        AGAIN,
      ];
    },
    () => {
      const [current, ...retired] = listIn(PEPPERS);
      // A token-service that still needs one says so and does not start: then it has to come back.
      write(RETIRED_PEPPERS, retired.join(','));
      write(PEPPERS, current);
      return [
        rollout('token-service'),
        `If it does not start, because something depends on an old one: append that again. It is in ${RETIRED_PEPPERS}.`,
        DONE,
      ];
    },
  ],
  EVENTS_SECRET: [
    () => {
      write('token-service/events_secret', random());
      return [rollout('token-service'), 'Revocations wait some seconds, until each verifier has renewed.', DONE];
    },
  ],
  EVENTS_SIGNING_KEY: [
    () => {
      write(EVENTS_SIGNING, [listIn(EVENTS_SIGNING)[0], random()].join(','));
      return [rollout('token-service'), 'Wait for one lease (LEASE_MS): all verifiers get the next key.', AGAIN];
    },
    () => {
      write(EVENTS_SIGNING, listIn(EVENTS_SIGNING).at(-1));
      return [rollout('token-service'), DONE];
    },
  ],
  JOBS_SEALING_KEY: [
    () => {
      write(SEALING, [...listIn(SEALING), random()].slice(-2).join(','));
      return [rollout('jobs'), AGAIN];
    },
    () => {
      write(SEALING, listIn(SEALING).reverse().join(','));
      derive();
      return [rollout('token-service'), 'Wait an hour: codes that were sent before expire.', AGAIN];
    },
    () => {
      write(SEALING, listIn(SEALING)[0]);
      return [rollout('jobs'), DONE];
    },
  ],
  AUDIT_SIGNING_KEY: signing('token-service/audit_signing_key', 'token-service/audit_retired_keys'),
  RECEIPT_SIGNING_KEY: signing('token-service/receipt_signing_key', 'token-service/receipt_retired_keys'),
  POSTGRES_PASSWORDS: [
    () => {
      for (const role of ROLES) write(`migrate/password_${role}`, random());
      derive();
      return ['At once, as no new connection can be opened until then: docker compose run --rm migrate', DONE];
    },
  ],
  REDIS_PASSWORD: [
    () => {
      write('redis/password_next', random(), 0o444);
      return [inRedis('>$(cat /run/latchkey/password_next)'), AGAIN];
    },
    () => {
      write('redis/password_previous', read('redis/password'), 0o444);
      write('redis/password', read('redis/password_next'), 0o444);
      derive();
      return [TAKEN_OVER, inRedis('<$(cat /run/latchkey/password_previous)'), AGAIN];
    },
    () => {
      for (const name of ['password_next', 'password_previous']) rmSync(at(`redis/${name}`), { force: true });
      return [DONE];
    },
  ],
};

/** @param {string[]} args the name of the secret */
export function rotate(args) {
  const [name = '', ...more] = args;
  const steps = secrets[name];
  if (!steps || more.length > 0) {
    console.error(
      `rotate: name one of ${Object.keys(secrets).join(', ')}.\n` +
        'LEDGER_KEY stays, because it authenticates the ledger. What is not made here is changed in .env.',
    );
    process.exit(2);
  }
  const given = { REDIS_PASSWORD: 'REDIS_URL' }[name] ?? name;
  if (process.env[given]) throw new Error(`${given} is set in .env: change it there`);
  // So that a step is neither left out nor repeated.
  const progress = `administrator/rotation/${name}`;
  const done = existsSync(at(progress)) ? Number(read(progress)) : 0;
  const next = steps[done]();
  if (done + 1 === steps.length) rmSync(at(progress), { force: true });
  else write(progress, String(done + 1));
  console.log(`${name}: step ${done + 1} of ${steps.length} is written.`);
  for (const line of next) console.log(`  ${line}`);
}
