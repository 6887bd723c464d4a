import { setTimeout as sleep } from 'node:timers/promises';
import { type Receipt, receiptJwt, receiptKeys } from '@latchkey/contracts';
import { madeAtMs } from '@latchkey/runtime';
import { Controller, Headers } from '@nestjs/common';
import type { Actor } from '../authorization/index.js';
import { Database } from '../database/index.js';
import { Answer, ApiError, Call, Caller, Input, type InputOf, notFound } from '../http/index.js';
import { ReceiptsService, receiptAsSeen } from '../invalidation/index.js';
import { maySee, type Owned } from './token.rules.js';

/** How long the set of keys may be remembered, in seconds: after a new key, so long a receipt may seem strange. */
const KEYS_MAX_AGE = 300;

/** How long after it was made a receipt is looked for again, if it is not there yet, and how often. */
const KEEPING_MS = 2_000;
const LOOK_AGAIN_MS = 100;
/** By how much this clock may be behind that of the replica which made the receipt. */
const CLOCKS_DIFFER_MS = 500;
/** Most requests that wait for one at a time; others are told at once that it is not there. */
const WAITING_MAX = 32;

/** Of a receipt: what it says, the person and the project that it is about, and whose its tokens are now. */
interface KeptRow {
  body: Receipt;
  user_id: string | null;
  project_id: string | null;
  owners: Owned[];
}

const SELECT_RECEIPT = `SELECT r.body, r.user_id, r.project_id, ARRAY(
    SELECT DISTINCT jsonb_build_object('ownerUserId', t.owner_user_id, 'projectId', t.project_id)
    FROM tokens t WHERE t.id = ANY (r.token_ids)) AS owners
  FROM receipts r WHERE r.id = $1`;

/** The HTTP endpoints of receipts. */
@Controller()
export class ReceiptsController {
  #waiting = 0;

  constructor(
    private readonly db: Database,
    private readonly receipts: ReceiptsService,
  ) {}

  @Call('receiptKeys')
  keys() {
    const keys = JSON.stringify(receiptKeys(this.receipts.publicKeys()));
    return new Answer(200, keys, {
      'content-type': 'application/jwk-set+json',
      'cache-control': `public, max-age=${KEYS_MAX_AGE}`,
    });
  }

  /** Not there and not to be seen are answered alike. */
  @Call('getReceipt')
  async get(
    @Caller() actor: Actor,
    @Input() { params }: InputOf<'getReceipt'>,
    @Headers('accept') accept: string | undefined,
  ) {
    const row = await this.#kept(params.id);
    if (!row || !maySeeReceipt(actor, row)) throw notFound('receipt');
    if (!isJwtAsked(accept)) return new Answer(200, receiptAsSeen(row.body), { vary: 'accept' });
    const jwt = receiptJwt(row.body);
    if (!jwt) throw new ApiError('not_signed', 'The receipt is not signed. Ask for it as application/json.');
    return new Answer(200, jwt, { 'content-type': 'application/jwt', vary: 'accept' });
  }

  /** A receipt is kept behind the response that it came with: whoever asks for one of just now waits for that. */
  async #kept(id: string): Promise<KeptRow | undefined> {
    for (;;) {
      const [row] = await this.db.prepared<KeptRow & Record<string, unknown>>('receipt', SELECT_RECEIPT, [id]);
      const ageMs = Date.now() - madeAtMs(id);
      if (row || ageMs < -CLOCKS_DIFFER_MS || ageMs > KEEPING_MS || this.#waiting >= WAITING_MAX) return row;
      this.#waiting++;
      await sleep(LOOK_AGAIN_MS).finally(() => this.#waiting--);
    }
  }
}

/** Whoever may see one of the things that it is about, and whoever reads the audit log. */
function maySeeReceipt(actor: Actor, { user_id, project_id, owners }: KeptRow): boolean {
  const { rights } = actor;
  if (rights.holds('audit:read')) return true;
  const isOwn = actor.type === 'user' && user_id === actor.userId;
  if (user_id !== null && (rights.holds('users:read') || isOwn)) return true;
  if (project_id !== null && rights.holds('projects:read', project_id)) return true;
  return owners.some((owner) => maySee(actor, owner));
}

/** Whether a JWT is named, and JSON not named before it. */
function isJwtAsked(accept = ''): boolean {
  const types = accept.split(',').map((part) => part.split(';', 1)[0]!.trim().toLowerCase());
  const first = types.find((type) => type === 'application/jwt' || type === 'application/json');
  return first === 'application/jwt';
}
