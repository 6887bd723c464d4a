import { createHmac } from 'node:crypto';
import { type Clock, ConfigError, type Logger } from '@latchkey/runtime';
import { Inject, Injectable, type OnApplicationShutdown } from '@nestjs/common';
import { Gauge, type Registry } from 'prom-client';
import { CLOCK, CONFIG, LOGGER, type TokenServiceConfig } from '../config.js';
import { type Change, Database, isDatabaseUnavailable } from '../database/index.js';
import { ApiError, unavailable } from '../http/index.js';
import {
  announcePeppers,
  COUNT_DEPENDENTS,
  type Dependents,
  giveUp,
  LOCK_PEPPERS,
  markUnused,
  type PepperRow,
  recordPeppers,
  SELECT_PEPPERS,
  selectLacking,
} from './peppers.queries.js';

const LABEL = 'latchkey pepper fingerprint';
const FINGERPRINT_BYTES = 16;
/** How often a running token-service says which peppers it has. */
const ANNOUNCE_EVERY_MS = 5_000;
/** How often it looks whether anything still depends on a pepper that it lacks. */
const RELEASE_EVERY_MS = 60_000;
const LOGGED_EVERY_MS = 10_000;
const COUNT_FOR_METRIC_EVERY_MS = 60_000;
const COUNT_FOR_STATE_EVERY_MS = 5_000;
/** Counting takes at most this part of the time. */
const COUNT_PART = 1 / 100;

/** Names a pepper without revealing it. */
export const fingerprintOf = (pepper: string): Buffer =>
  createHmac('sha256', pepper).update(LABEL).digest().subarray(0, FINGERPRINT_BYTES);

/** A pepper, what depends on it, and whether this process has it. */
export interface PepperState {
  id: string;
  configured: boolean;
  current: boolean;
  inUse: boolean;
  firstUsedAt: Date | null;
  /** At most: rows that do not say count for each pepper that can have written them. Null: counting took too long. */
  dependents: Dependents | null;
}

type Counts = ReadonlyMap<number | null, Dependents>;

const NOTHING: Dependents = { tokens: 0, secondFactors: 0, recoveryCodes: 0 };

/** Knows by their fingerprints which peppers wrote this database, and whether this process has them all. */
@Injectable()
export class PeppersService implements OnApplicationShutdown {
  /** Of the configured peppers, the current one first. */
  readonly fingerprints: readonly Buffer[];
  readonly #own: readonly string[];
  #currentId: number | undefined;
  #rows: readonly PepperRow[] = [];
  #mayMove = false;
  #timer: NodeJS.Timeout | undefined;
  #isAnnouncing = false;
  #releaseAtMs = 0;
  #loggedAtMs = Number.NEGATIVE_INFINITY;
  #counted: { counts: Counts | null; atMs: number; tookMs: number } | undefined;
  #counting: Promise<Counts | null> | undefined;

  constructor(
    private readonly db: Database,
    @Inject(CONFIG) private readonly config: Pick<TokenServiceConfig, 'TOKEN_PEPPERS' | 'TOKEN_PEPPERS_GIVEN_UP'>,
    @Inject(LOGGER) private readonly logger: Logger,
    @Inject(CLOCK) private readonly clock: Clock,
  ) {
    this.fingerprints = config.TOKEN_PEPPERS.map(fingerprintOf);
    this.#own = this.fingerprints.map((fingerprint) => fingerprint.toString('hex'));
  }

  /** Id of the current pepper in the database. */
  get currentId(): number {
    if (this.#currentId === undefined) throw new Error('the peppers are not recorded yet');
    return this.#currentId;
  }

  /**
   * Whether rows can be moved to the current pepper: all running token-services write under it, and have it.
   * It has been so for `SILENT_SECONDS_MAX`.
   */
  get mayMove(): boolean {
    return this.#mayMove;
  }

  /**
   * Records the peppers of this process. To be called before the listeners open. Safe to repeat.
   * @throws ConfigError when tokens, second factors or recovery codes depend on a pepper that this process lacks
   */
  async start(): Promise<void> {
    const contradiction = this.config.TOKEN_PEPPERS_GIVEN_UP.find((id) => this.#own.includes(id));
    if (contradiction)
      throw new ConfigError([
        `TOKEN_PEPPERS_GIVEN_UP names ${contradiction}, which is a pepper in TOKEN_PEPPERS: remove it from one of them`,
      ]);
    this.#take((await this.#recorded(undefined)) ?? (await this.#recorded(await this.#count()))!);
    this.#timer ??= setInterval(() => void this.#announce(), ANNOUNCE_EVERY_MS).unref();
  }

  onApplicationShutdown(): void {
    clearInterval(this.#timer);
  }

  /**
   * For a look-up that found nothing.
   * @param lacking what `lackingOf` returned in the same statement
   * @returns the error to throw when the row can be stored under a pepper that this process lacks
   */
  errorOf(lacking: readonly string[] | null): ApiError | null {
    if (!lacking) return null;
    const nowMs = this.clock.monotonicMs();
    if (nowMs - this.#loggedAtMs >= LOGGED_EVERY_MS) {
      this.#loggedAtMs = nowMs;
      this.logger.error(
        { lacking },
        `TOKEN_PEPPERS lacks the pepper ${lacking.join(', ')}, which this database uses: returning 503 for tokens that are not found. Add it, as on the other token-services.`,
      );
    }
    return unavailable('This server lacks a pepper that the database uses. The credentials may be right; try again.');
  }

  /** For a look-up in a change that found nothing. @throws ApiError `unavailable` as `errorOf` says */
  async mustLackNone(change: Pick<Change, 'read'>): Promise<void> {
    const [row] = await change.read<{ lacking: string[] | null }>(selectLacking(this.fingerprints));
    const error = this.errorOf(row!.lacking);
    if (error) throw error;
  }

  /** The same outside a change. @throws ApiError `unavailable` */
  mustLackNoneNow(): Promise<void> {
    return this.db.change((change) => this.mustLackNone(change));
  }

  /** Every pepper that the database knows; counts are a few seconds old. */
  async state(): Promise<PepperState[]> {
    const [rows, counts] = await Promise.all([
      this.db.query<PepperRow>(SELECT_PEPPERS),
      this.#counts(COUNT_FOR_STATE_EVERY_MS),
    ]);
    return rows.map((row) => ({
      id: row.fingerprint,
      configured: this.#has(row),
      current: row.fingerprint === this.#own[0],
      inUse: row.inUse,
      firstUsedAt: row.firstUsedAt,
      dependents: counts && dependentsOf(row, counts),
    }));
  }

  registerMetrics(registry: Registry): void {
    const read = async () => ({ rows: this.#rows, counts: await this.#counts(COUNT_FOR_METRIC_EVERY_MS) });
    new Gauge({
      name: 'latchkey_tokens_by_pepper',
      help: 'Tokens, neither revoked nor expired, that depend on a pepper, by its fingerprint; at most, as rows of before 0.2 count for each pepper that can have written them. The same at every replica, a minute old or more; absent when counting takes too long',
      labelNames: ['pepper'],
      registers: [registry],
      async collect() {
        const { rows, counts } = await read();
        this.reset();
        if (counts) for (const row of rows) this.set({ pepper: row.fingerprint }, dependentsOf(row, counts).tokens);
      },
    });
  }

  /**
   * Gives up what the operator says, marks what is not used any more, and records the peppers of this process.
   * @param counts null: counting took too long
   * @returns null when counts are needed, without which nothing was changed
   * @throws ConfigError as `start` does
   */
  #recorded(counts: Counts | null | undefined): Promise<PepperRow[] | null> {
    return this.db.change(async (change) => {
      change.write(LOCK_PEPPERS);
      const known = await change.read<PepperRow>([SELECT_PEPPERS, []]);
      const givenUp = known.filter(({ fingerprint }) => this.config.TOKEN_PEPPERS_GIVEN_UP.includes(fingerprint));
      const lacking = known.filter((row) => row.inUse && !this.#has(row) && !givenUp.includes(row));
      if (lacking.length > 0) {
        if (counts === undefined) return null;
        const orphaned = lacking.filter((row) => !counts || !isUnused(row, counts));
        if (orphaned.length > 0) throw new ConfigError(orphaned.map((row) => lackingText(row, counts)));
        change.write(markUnused(lacking.map(({ id }) => id)));
      }
      if (givenUp.length > 0) {
        change.write(giveUp(givenUp.map(({ id }) => id)));
        const peppers = givenUp.map(({ fingerprint }) => fingerprint);
        this.logger.warn({ peppers }, 'peppers are given up: what depends on them is not accepted any more');
      }
      return this.#record(change, known.length === 0);
    });
  }

  #has({ fingerprint }: PepperRow): boolean {
    return this.#own.includes(fingerprint);
  }

  async #record(change: Change, isFirst: boolean): Promise<PepperRow[]> {
    change.write(...recordPeppers(this.fingerprints, isFirst), ...announcePeppers(this.fingerprints));
    return change.read<PepperRow>([SELECT_PEPPERS, []]);
  }

  #take(rows: readonly PepperRow[]): void {
    const current = rows.find(({ fingerprint }) => fingerprint === this.#own[0])!;
    this.#rows = rows;
    this.#currentId = current.id;
    this.#mayMove = current.isSettled && !current.isLacked && rows.every((row) => row === current || !row.isCurrent);
  }

  async #announce(): Promise<void> {
    if (this.#isAnnouncing) return;
    this.#isAnnouncing = true;
    try {
      this.#take(
        await this.db.change(async (change) => {
          change.write(...announcePeppers(this.fingerprints));
          const rows = await change.read<PepperRow>([SELECT_PEPPERS, []]);
          const isKnown = (own: string) => rows.some(({ fingerprint }) => fingerprint === own);
          if (this.#own.every(isKnown)) return rows;
          // The database was restored to before they were recorded.
          change.write(LOCK_PEPPERS);
          return this.#record(change, rows.length === 0);
        }),
      );
      await this.#release();
    } catch (error) {
      this.#mayMove = false;
      if (!isDatabaseUnavailable(error))
        this.logger.warn({ err: error }, 'recording the peppers in use failed; retrying');
    } finally {
      this.#isAnnouncing = false;
    }
  }

  /** Marks peppers that this process lacks as unused once nothing depends on them. */
  async #release(): Promise<void> {
    const lacking = this.#rows.filter((row) => row.inUse && !row.isCurrent && !this.#has(row));
    const nowMs = this.clock.monotonicMs();
    if (lacking.length === 0 || nowMs < this.#releaseAtMs) return;
    this.#releaseAtMs = nowMs + RELEASE_EVERY_MS;
    const counts = await this.#count();
    const unused = counts ? lacking.filter((row) => isUnused(row, counts)).map(({ id }) => id) : [];
    if (unused.length > 0) await this.db.change(async (change) => change.write(markUnused(unused)));
  }

  /** By pepper; null when counting failed. @param everyMs how old they can be, unless counting takes long */
  #counts(everyMs: number): Promise<Counts | null> {
    const last = this.#counted;
    const nowMs = this.clock.monotonicMs();
    if (last && nowMs - last.atMs < Math.max(everyMs, last.tookMs / COUNT_PART)) return Promise.resolve(last.counts);
    return this.#count();
  }

  /** Now; one at a time. */
  #count(): Promise<Counts | null> {
    const startMs = this.clock.monotonicMs();
    this.#counting ??= this.db
      .page<Counted>(COUNT_DEPENDENTS, [])
      .then(countsOf, (error: Error) => {
        this.logger.warn({ reason: error.message }, 'counting what depends on each pepper failed');
        return null;
      })
      .then((counts) => {
        const atMs = this.clock.monotonicMs();
        this.#counted = { counts, atMs, tookMs: atMs - startMs };
        this.#counting = undefined;
        return counts;
      });
    return this.#counting;
  }
}

type Counted = Dependents & { pepperId: number | null };

const countsOf = (rows: readonly Counted[]): Counts =>
  new Map(rows.map(({ pepperId, ...dependents }) => [pepperId, dependents]));

/** Rows that do not say count for each pepper that can have written them. */
function dependentsOf({ id, unmarked }: PepperRow, counts: Counts): Dependents {
  const own = counts.get(id) ?? NOTHING;
  const shared = (unmarked && counts.get(null)) || NOTHING;
  return {
    tokens: own.tokens + shared.tokens,
    secondFactors: own.secondFactors + shared.secondFactors,
    recoveryCodes: own.recoveryCodes + shared.recoveryCodes,
  };
}

const isUnused = (row: PepperRow, counts: Counts): boolean =>
  Object.values(dependentsOf(row, counts)).every((n) => n === 0);

function lackingText(row: PepperRow, counts: Counts | null): string {
  const { fingerprint, firstUsedAt } = row;
  return (
    `TOKEN_PEPPERS lacks the pepper with the fingerprint ${fingerprint}, in use since ${firstUsedAt!.toISOString()}. ` +
    `${counts ? dependentsText(dependentsOf(row, counts)) : 'Counting what depends on it took too long'}. ` +
    'Restore TOKEN_PEPPERS from the backup of the secrets that belongs to this database, or append this pepper to it. ' +
    `If it is lost for good, set TOKEN_PEPPERS_GIVEN_UP=${fingerprint}: those tokens and recovery codes are then not ` +
    'accepted any more, their owners issue new ones, and administrators reset those second factors'
  );
}

const dependentsText = ({ tokens, secondFactors, recoveryCodes }: Dependents): string =>
  `On it depend: tokens: ${tokens}, second factors: ${secondFactors}, people with recovery codes: ${recoveryCodes}`;
