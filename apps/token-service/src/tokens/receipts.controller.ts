import { setTimeout as sleep } from 'node:timers/promises';
import { type Receipt, receiptJwt, receiptKeys } from '@latchkey/contracts';
import { madeAtMs } from '@latchkey/runtime';
import { Controller, Headers } from '@nestjs/common';
import type { Actor } from '../authorization/index.js';
import { Database } from '../database/index.js';
import { ApiError, Call, Caller, HttpResponse, Input, type InputOf, notFound } from '../http/index.js';
import { ReceiptsService, receiptAsSeen } from '../invalidation/index.js';
import { maySee, type Owned } from './token.rules.js';

/** How long the key set can be cached, in seconds: a receipt signed with a new key can be unverifiable for so long. */
const KEYS_MAX_AGE = 300;

/** How long after its creation a missing receipt is polled for, and how often. */
const STORE_WAIT_MS = 2_000;
const POLL_MS = 100;
/** How far this clock can be behind that of the replica that created the receipt. */
const CLOCK_SKEW_MAX_MS = 500;
/** Most requests that wait at a time; others get 404 at once. */
const WAITING_MAX = 32;

/** A receipt, the person and project that it concerns, and the current owners of its tokens. */
interface ReceiptRow {
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
    return new HttpResponse(200, keys, {
      'content-type': 'application/jwk-set+json',
      'cache-control': `public, max-age=${KEYS_MAX_AGE}`,
    });
  }

  /** The same response for a receipt that does not exist and one that the caller may not see. */
  @Call('getReceipt')
  async get(
    @Caller() actor: Actor,
    @Input() { params }: InputOf<'getReceipt'>,
    @Headers('accept') accept: string | undefined,
  ) {
    const row = await this.#stored(params.id);
    if (!row || !maySeeReceipt(actor, row)) throw notFound('receipt');
    if (!prefersJwt(accept)) return new HttpResponse(200, receiptAsSeen(row.body), { vary: 'accept' });
    const jwt = receiptJwt(row.body);
    if (!jwt) throw new ApiError('not_signed', 'The receipt is not signed. Request it as application/json.');
    return new HttpResponse(200, jwt, { 'content-type': 'application/jwt', vary: 'accept' });
  }

  /** A receipt is stored after the response that contains it, so a request for a recent one waits for that. */
  async #stored(id: string): Promise<ReceiptRow | undefined> {
    for (;;) {
      const [row] = await this.db.prepared<ReceiptRow & Record<string, unknown>>('receipt', SELECT_RECEIPT, [id]);
      const ageMs = Date.now() - madeAtMs(id);
      if (row || ageMs < -CLOCK_SKEW_MAX_MS || ageMs > STORE_WAIT_MS || this.#waiting >= WAITING_MAX) return row;
      this.#waiting++;
      await sleep(POLL_MS).finally(() => this.#waiting--);
    }
  }
}

/** Whether the caller may see one of the subjects of the receipt, or reads the audit log. */
function maySeeReceipt(actor: Actor, { user_id, project_id, owners }: ReceiptRow): boolean {
  const { rights } = actor;
  if (rights.holds('audit:read')) return true;
  const isOwn = actor.type === 'user' && user_id === actor.userId;
  if (user_id !== null && (rights.holds('users:read') || isOwn)) return true;
  if (project_id !== null && rights.holds('projects:read', project_id)) return true;
  return owners.some((owner) => maySee(actor, owner));
}

/** Whether the header names a JWT, and JSON not before it. */
function prefersJwt(accept = ''): boolean {
  const types = accept.split(',').map((part) => part.split(';', 1)[0]!.trim().toLowerCase());
  const first = types.find((type) => type === 'application/jwt' || type === 'application/json');
  return first === 'application/jwt';
}
