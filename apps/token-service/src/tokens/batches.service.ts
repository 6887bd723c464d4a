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
import { insertNamed, type MatchCounts, selectMatching, selectUnfinished } from './batch.queries.js';
import { ClosuresService } from './closures.service.js';
import { insertExposure } from './exposure.queries.js';
import { actorColumns } from './exposure.rules.js';
import { RevocationsService } from './revocations.service.js';
import { ownersWith, TokenReader } from './token.reader.js';

type RevocationRequest = Pick<RevokeTokensBody, 'filter' | 'reason' | 'comment' | 'expect'>;

/** Revokes tokens named by a filter: stores the set in one transaction, then revokes it in steps. */
@Injectable()
export class BatchesService {
  constructor(
    private readonly db: Database,
    private readonly locks: LocksService,
    private readonly closures: ClosuresService,
    private readonly revocations: RevocationsService,
    private readonly reader: TokenReader,
    private readonly rates: RatesService,
    @Inject(CONFIG) private readonly config: Pick<TokenServiceConfig, 'TOKEN_PREFIX'>,
  ) {}

  /**
   * The tokens that a filter matches now and the caller may revoke; changes nothing.
   * @throws ApiError as `revoke`
   */
  async preview(actor: Actor, request: Pick<RevocationRequest, 'filter'>): Promise<RevocationPreview> {
    await this.#countUse(actor);
    const { matched, newest } = await this.#matching(actor, request);
    const found = await this.reader.readAll(newest);
    // A caller who may revoke a token can lack the scope to read it.
    const readable = ownersWith(actor, 'tokens:read', request.filter);
    const tokens = readable === 'all' ? found : found.filter(({ owner }) => readable.includes(owner.id));
    return { matched, tokens };
  }

  async #matching(actor: Actor, { filter, expect }: Pick<RevocationRequest, 'filter' | 'expect'>) {
    this.#checkPrefixLength(filter);
    const [text, values = []] = selectMatching(filter, revocableOwners(actor, filter));
    const [found] = await this.db.page<{ matched: number; newest: string[] }>(text, values);
    mustBeWithinLimit(found!.matched);
    mustBeExpected(found!.matched, expect);
    return found!;
  }

  /** A prefix longer than the stored one matches no token, and would look like success. */
  #checkPrefixLength({ prefix }: TokenFilter): void {
    const length = this.config.TOKEN_PREFIX.length + STORED_AFTER_PREFIX;
    if (prefix !== undefined && prefix.length > length)
      throw badField('filter.prefix', `at most ${length} characters of a secret are stored`);
  }

  /** Rate limit: one call reads, and can write, a hundred thousand rows. */
  #countUse(actor: Actor): Promise<void> {
    return this.rates.count('revoke-many', actorId(actor), { max: 60, windowSeconds: 60 });
  }

  /**
   * Revokes the tokens that a filter matches and the caller may revoke, with their descendants; with reason `exposed` also
   * every token whose secret they were shown. The transaction that stores the set defines it: after its commit every
   * token of it is revoked, even if this process or the caller stops. Tokens issued later are not in it. Safe to repeat:
   * it waits again for matching tokens whose revocation is not confirmed yet.
   * @throws ApiError `conflict` when more match than expected, `too_many_matches`, or `forbidden` when the caller may
   *   revoke none
   */
  async revoke(actor: Actor, body: RevocationRequest, waitMs: number | undefined): Promise<RevokedMany> {
    await this.#countUse(actor);
    // Checked by a read first, under which no one waits; checked again when the set is stored.
    await this.#matching(actor, body);
    const id = newId();
    const { matched, members } = await this.db.change((change) => this.#insertMatching(change, id, actor, body));
    if (members === 0)
      return { ...(await this.revocations.confirmUnchanged(waitMs)), matched, batch: null, ended: NO_COUNTS };
    const effect = await this.closures.finish(await this.closures.revokeFirst(id), waitMs);
    return { ...effect, matched, batch: id };
  }

  async #insertMatching(
    change: Change,
    id: string,
    actor: Actor,
    { filter, reason, comment, expect }: RevocationRequest,
  ): Promise<MatchCounts> {
    const { now, read } = await this.locks.lock(change, actor, {}, selectUnfinished(actorId(actor)));
    if ((read[0] ?? []).length >= UNFINISHED_MAX)
      throw conflict('Your earlier requests to revoke by filter are still in progress. Try again in a moment.');
    const owners = revocableOwners(now, filter);
    const exposure = { id, ...actorColumns(now), reason, comment: comment ?? null, filter, tokens: 0 };
    change.write(insertExposure(exposure, new Date()));
    const [counts] = (await change.read<MatchCounts>(insertNamed(id, filter, owners, reason))) as [MatchCounts];
    mustBeWithinLimit(counts.members);
    mustBeExpected(counts.matched, expect);
    if (counts.members === 0) change.write(['DELETE FROM exposures WHERE id = $1', [id]]);
    return counts;
  }
}

/** Characters of a secret that are stored after TOKEN_PREFIX: `_pat_` and four of the random part. */
const STORED_AFTER_PREFIX = 9;
/** Most sets of one person or token that are being revoked at once. */
const UNFINISHED_MAX = 4;
const NO_COUNTS = { tokens: 0, successors: 0, descendants: 0, shown: 0 };

/**
 * The owners, among those requested, whose tokens the caller may revoke.
 * @throws ApiError when there are none, since an empty result would look like success; the same whether or not the owner
 *   exists
 */
function revocableOwners(actor: Actor, filter: TokenFilter): 'all' | string[] {
  const owners = ownersWith(actor, 'tokens:write', filter);
  if (owners === 'all' || owners.length > 0) return owners;
  // Two different owners match no token, for any caller.
  if (actor.rights.everywhere && actor.rights.holds('tokens:write')) return owners;
  if (actor.type === 'token') throw lacksScope(['tokens:write'], 'The token may not revoke any token of that owner.');
  throw forbidden('You may not revoke tokens of that owner or project. Ask an editor or owner of it.');
}

function mustBeExpected(matched: number, expect: number | undefined): void {
  if (expect === undefined || matched <= expect) return;
  throw conflict(`${matched} tokens match, and expect names ${expect}. Nothing was revoked; check the preview again.`);
}

function mustBeWithinLimit(matched: number): void {
  if (matched <= LIMITS.revokeManyMax) return;
  throw new ApiError(
    'too_many_matches',
    `More than ${LIMITS.revokeManyMax} tokens match. Narrow the filter, by createdBefore for instance. Nothing was changed.`,
  );
}
