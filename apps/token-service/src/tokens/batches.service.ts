import {
  LIMITS,
  type RevocationPreview,
  type RevokedMany,
  type RevokeTokensBody,
  type TokenFilter,
} from '@latchkey/contracts';
import { newId } from '@latchkey/runtime';
import { Inject, Injectable } from '@nestjs/common';
import { type Actor, actorId } from '../authorization/index.js';
import { CONFIG, type TokenServiceConfig } from '../config.js';
import { type Change, Database } from '../database/index.js';
import { ApiError, badField, conflict, forbidden, lacksScope, RatesService } from '../http/index.js';
import { LocksService } from '../verification/index.js';
import { insertNamed, type Named, selectMatching, selectUnended } from './batch.queries.js';
import { ClosuresService } from './closures.service.js';
import { insertExposure } from './exposure.queries.js';
import { makerColumns } from './exposure.rules.js';
import { ownersWith, RecordsService } from './records.service.js';
import { RevocationsService } from './revocations.service.js';

type Wanted = Pick<RevokeTokensBody, 'filter' | 'reason' | 'comment' | 'expect'>;

/** Revokes tokens named by a filter: the set is written down at one moment, and then ended in steps. */
@Injectable()
export class BatchesService {
  constructor(
    private readonly db: Database,
    private readonly locks: LocksService,
    private readonly closures: ClosuresService,
    private readonly revocations: RevocationsService,
    private readonly records: RecordsService,
    private readonly rates: RatesService,
    @Inject(CONFIG) private readonly config: Pick<TokenServiceConfig, 'TOKEN_PREFIX'>,
  ) {}

  /**
   * What a filter names at this moment, of the tokens that the caller may revoke; nothing is changed.
   * @throws ApiError as `revoke` does
   */
  async preview(actor: Actor, wanted: Pick<Wanted, 'filter'>): Promise<RevocationPreview> {
    await this.#mustBeSeldom(actor);
    const { matched, newest } = await this.#matching(actor, wanted);
    const records = await this.records.readAll(newest);
    // Whoever may revoke a token need not be one who may read it.
    const readable = ownersWith(actor, 'tokens:read', wanted.filter);
    const tokens = readable === 'all' ? records : records.filter(({ owner }) => readable.includes(owner.id));
    return { matched, tokens };
  }

  async #matching(actor: Actor, { filter, expect }: Pick<Wanted, 'filter' | 'expect'>) {
    this.#mustBeAPrefix(filter);
    const [text, values = []] = selectMatching(filter, revocableOwners(actor, filter));
    const [found] = await this.db.page<{ matched: number; newest: string[] }>(text, values);
    mustBeFew(found!.matched);
    mustBeExpected(found!.matched, expect);
    return found!;
  }

  /** A longer start than is kept fits no token, and would look like success. */
  #mustBeAPrefix({ prefix }: TokenFilter): void {
    const length = this.config.TOKEN_PREFIX.length + START_BEYOND_PREFIX;
    if (prefix !== undefined && prefix.length > length)
      throw badField('filter.prefix', `no more than ${length} characters of a secret are known`);
  }

  /** One call reads, and may write, a hundred thousand rows. */
  #mustBeSeldom(actor: Actor): Promise<void> {
    return this.rates.count('revoke-many', actorId(actor), { max: 60, windowSeconds: 60 });
  }

  /**
   * Revokes what a filter names, of the tokens that the caller may revoke, with their descendants; as exposed, all that
   * they were shown too. The set is that of the transaction that writes it down: from its commit on it is ended to the
   * last, whatever becomes of this process or of the caller. A token issued after that is not in it. Repeating it is
   * harmless: tokens that fit and are revoked, but not confirmed yet, are waited for again.
   * @throws ApiError `conflict` when more match than expected, `too_many_matches`, or `forbidden` where the caller may
   *   revoke nothing
   */
  async revoke(actor: Actor, body: Wanted, waitMs: number | undefined): Promise<RevokedMany> {
    await this.#mustBeSeldom(actor);
    // Too many are noticed by reading them, where nobody else waits; counted again when they are written down.
    await this.#matching(actor, body);
    const id = newId();
    const { matched, members } = await this.db.change((change) => this.#name(change, id, actor, body));
    if (members === 0) return { ...(await this.revocations.nothingLeft(waitMs)), matched, batch: null, ended: NONE };
    const effect = await this.closures.finish(await this.closures.endFirst(id), waitMs);
    return { ...effect, matched, batch: id };
  }

  async #name(change: Change, id: string, actor: Actor, { filter, reason, comment, expect }: Wanted): Promise<Named> {
    const { now, read } = await this.locks.lock(change, actor, {}, selectUnended(actorId(actor)));
    if ((read[0] ?? []).length >= UNENDED_MAX)
      throw conflict('Tokens that you named before are still being revoked. Repeat this in a moment.');
    const owners = revocableOwners(now, filter);
    const exposure = { id, ...makerColumns(now), reason, comment: comment ?? null, filter, tokens: 0 };
    change.write(insertExposure(exposure, new Date()));
    const [named] = (await change.read<Named>(insertNamed(id, filter, owners, reason))) as [Named];
    mustBeFew(named.members);
    mustBeExpected(named.matched, expect);
    if (named.members === 0) change.write(['DELETE FROM exposures WHERE id = $1', [id]]);
    return named;
  }
}

/** Of a secret, this many characters after the prefix are kept: `_pat_` and four of the random part. */
const START_BEYOND_PREFIX = 9;
/** Most sets of one person or token that are being ended at once. */
const UNENDED_MAX = 4;
const NONE = { tokens: 0, successors: 0, descendants: 0, shown: 0 };

/**
 * Whose tokens the caller may revoke, of those asked for. Where that is nobody's, an empty set would look like success to
 * somebody in a hurry; the refusal is the same whether anything is there or not.
 */
function revocableOwners(actor: Actor, filter: TokenFilter): 'all' | string[] {
  const owners = ownersWith(actor, 'tokens:write', filter);
  if (owners === 'all' || owners.length > 0) return owners;
  // Two owners at once are nobody's: that is an empty set for everyone.
  if (actor.rights.everywhere && actor.rights.holds('tokens:write')) return owners;
  if (actor.type === 'token') throw lacksScope(['tokens:write'], 'The token may not revoke any token of that owner.');
  throw forbidden('You may not revoke tokens of that owner or project. Ask an editor or owner of it.');
}

function mustBeExpected(matched: number, expect: number | undefined): void {
  if (expect === undefined || matched <= expect) return;
  throw conflict(
    `${matched} tokens match, and expect names ${expect}. Nothing was revoked; look at the preview again.`,
  );
}

function mustBeFew(matched: number): void {
  if (matched <= LIMITS.revokeManyMax) return;
  throw new ApiError(
    'too_many_matches',
    `More than ${LIMITS.revokeManyMax} tokens match. Narrow the filter, by createdBefore for instance. Nothing was changed.`,
  );
}
