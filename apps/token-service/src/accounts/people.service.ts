import {
  ADVISORY_LOCKS,
  type createUserBody,
  type Effect,
  emailSchema,
  LIMITS,
  lineSchema,
  type listQuery,
  type PersonRole,
  type patchUserBody,
  type User,
} from '@latchkey/contracts';
import { type Logger, newId } from '@latchkey/runtime';
import { Inject, Injectable } from '@nestjs/common';
import type { z } from 'zod';
import { AuditService } from '../audit/index.js';
import { type Actor, SYSTEM } from '../authorization/index.js';
import { CONFIG, LOGGER, type TokenServiceConfig } from '../config.js';
import { type Change, columnsAs, constraintHit, Database, insertInto, select, update } from '../database/index.js';
import { ApiError, conflict, forbidden, keysetPage, notFound, type Page } from '../http/index.js';
import { InvalidationService, NO_INVALIDATION } from '../invalidation/index.js';
import { LocksService } from '../verification/index.js';
import { AttemptsService } from './attempts.service.js';
import { PasswordEmailsService } from './password-emails.service.js';
import { hashPassword, isPassword } from './passwords.js';
import { UserEntity } from './user.entity.js';

/** People: identity, role, and whether they are disabled. */
@Injectable()
export class PeopleService {
  constructor(
    private readonly db: Database,
    private readonly audit: AuditService,
    private readonly locks: LocksService,
    private readonly invalidations: InvalidationService,
    private readonly attempts: AttemptsService,
    private readonly passwordEmails: PasswordEmailsService,
    @Inject(CONFIG) private readonly config: TokenServiceConfig,
    @Inject(LOGGER) private readonly logger: Logger,
  ) {}

  /** Creates the first administrator when there are no people yet. Replicas that start together create one. */
  async ensureFirstAdministrator(): Promise<void> {
    const { ADMIN_EMAIL: address, ADMIN_PASSWORD: password } = this.config;
    const [existing] = await this.db.query('SELECT 1 FROM users LIMIT 1');
    if (existing) return;
    if (!address || !password) {
      this.logger.warn('no person exists who could sign in: start once with ADMIN_EMAIL and ADMIN_PASSWORD');
      return;
    }
    const passwordHash = await hashPassword(password);
    await this.db.change(async (change) => {
      change.write(['SELECT pg_advisory_xact_lock($1)', [ADVISORY_LOCKS.firstAdministrator]]);
      if ((await change.read(['SELECT 1 FROM users LIMIT 1'])).length) return;
      const email = address.toLowerCase();
      this.#insert(change, { id: newId(), email, name: 'Administrator', role: 'admin', passwordHash }, SYSTEM);
    });
  }

  async list(actor: Actor, query: z.output<typeof listQuery>): Promise<Page<User>> {
    this.#mustHold(actor, 'users:read');
    const values: unknown[] = [];
    const where: string[] = [];
    if (query.q) {
      values.push(`%${query.q.toLowerCase().replace(/[\\%_]/g, '\\$&')}%`);
      where.push('(lower(name) LIKE $1 OR email LIKE $1)');
    }
    return keysetPage(query, { values, where }, async ({ where, values, tail }) =>
      (await this.db.query<UserRow>(`SELECT ${USER_COLUMNS} FROM users ${where} ${tail}`, values)).map(toUser),
    );
  }

  async create(actor: Actor, body: z.output<typeof createUserBody>): Promise<User> {
    const passwordHash = body.password === undefined ? null : await hashPassword(body.password);
    try {
      return await this.db.change(async (change) => {
        const { now } = await this.locks.lock(change, actor);
        this.#mustHold(now, 'users:write');
        mustNotRaise(now, body.role);
        const { email, name, role } = body;
        const person = this.#insert(change, { id: newId(), email, name, role, passwordHash }, now);
        // Without an initial password the person chooses one by email.
        if (passwordHash === null) this.passwordEmails.invite(change, person.id);
        return person;
      });
    } catch (error) {
      if (constraintHit(error) === 'users_email_once')
        throw conflict('A person with this email address exists already.');
      throw error;
    }
  }

  /** Changes a person; a change of role or disabling affects their tokens and takes effect like a revocation. */
  async patch(
    actor: Actor,
    id: string,
    body: z.output<typeof patchUserBody>,
    waitMs: number | undefined,
  ): Promise<Effect & { user: User }> {
    const { user, invalidation } = await this.db.change(async (change) => {
      const { now } = await this.locks.lock(change, actor, { change: { users: [id] } });
      this.#mustHold(now, 'users:write');
      const [before] = await change.read<UserEntity>(select(UserEntity, { id }));
      if (!before) throw notFound('person');
      const role = body.role ?? before.role;
      if (role !== before.role) mustNotRaise(now, role);
      const disabled = body.disabled ?? before.disabledAt !== null;
      const wasAdministrator = before.role === 'admin' && before.disabledAt === null;
      if (wasAdministrator && (role !== 'admin' || disabled)) await this.#mustNotBeLastAdministrator(change, id);
      const after = {
        name: body.name ?? before.name,
        role,
        disabledAt: disabled ? (before.disabledAt ?? new Date()) : null,
      };
      change.write(update(UserEntity, { id }, after));
      const changed = { ...before, ...after };
      this.#recordPatch(change, now, before, changed);
      if (disabled && before.disabledAt === null) change.write(['DELETE FROM sessions WHERE user_id = $1', [id]]);
      // A repeat waits for confirmation too: the first change can be unconfirmed.
      const affectsRights = body.role !== undefined || body.disabled !== undefined;
      const written = affectsRights
        ? this.invalidations.write(change, { kind: 'owner', subject: id, cut: disabled })
        : null;
      return { user: toUser(changed), invalidation: written };
    });
    if (!invalidation) return { user, ...NO_INVALIDATION };
    return { user, ...(await this.invalidations.confirm([invalidation], { waitMs })) };
  }

  /**
   * The person with this email address and password, if they may sign in, and the matching hash. Takes as long when there
   * is none.
   */
  async byPassword(email: string, password: string): Promise<{ user: User; passwordHash: string } | null> {
    const [found] = await this.db.query<UserEntity>(
      `SELECT ${USER_COLUMNS}, password_hash AS "passwordHash" FROM users WHERE email = $1`,
      [email.toLowerCase()],
    );
    const right = await isPassword(found?.passwordHash ?? null, password);
    if (!found?.passwordHash || !right || found.disabledAt !== null) return null;
    return { user: toUser(found), passwordHash: found.passwordHash };
  }

  /** @throws ApiError `sign_in_failed` when it is not the person's password; `rate_limited` after ten failures in 15 minutes */
  async mustBeOwnPassword(id: string, password: string): Promise<void> {
    const counted = await this.attempts.countFromAnywhere(`password ${id}`);
    const [found] = await this.db.query<{ password_hash: string | null }>(
      'SELECT password_hash FROM users WHERE id = $1',
      [id],
    );
    if (!(await isPassword(found?.password_hash ?? null, password)))
      throw new ApiError('sign_in_failed', 'That is not your password.');
    await this.attempts.forget(counted);
  }

  /** The hash to store for a password. */
  hashOf(password: string): Promise<string> {
    return hashPassword(password);
  }

  /**
   * The person linked to this subject of an identity provider. A new subject is linked to the person with that email
   * address, which the provider must have verified; or, where `mayCreate`, to a new member.
   * @returns null when there is no such person, or they are disabled
   */
  async byIdentity(identity: {
    issuer: string;
    subject: string;
    email: string | null;
    name: string | null;
    mayCreate: boolean;
  }): Promise<User | null> {
    return this.db.change(async (change) => {
      // Serializes concurrent first sign-ins of one person.
      change.write([
        'SELECT pg_advisory_xact_lock(hashtextextended($1, 0))',
        [`${identity.issuer} ${identity.subject}`],
      ]);
      const [linked] = await change.read<UserRow>([
        `SELECT ${USER_COLUMNS} FROM users WHERE id = (SELECT user_id FROM sign_in_identities WHERE issuer = $1 AND subject = $2)`,
        [identity.issuer, identity.subject],
      ]);
      const found = linked ?? (await this.#link(change, identity));
      return found && found.disabledAt === null ? toUser(found) : null;
    });
  }

  async #link(change: Change, identity: Parameters<PeopleService['byIdentity']>[0]): Promise<UserRow | null> {
    const email = emailSchema.safeParse(identity.email ?? '');
    if (!email.success) return null;
    const find = async () => {
      const sql = `SELECT ${USER_COLUMNS} FROM users WHERE email = $1 FOR NO KEY UPDATE`;
      return (await change.read<UserRow>([sql, [email.data]]))[0] ?? null;
    };
    let person = await find();
    if (!person && identity.mayCreate) {
      const given = lineSchema(LIMITS.nameLengthMax).safeParse(identity.name ?? '');
      const name = given.success ? given.data : email.data.slice(0, LIMITS.nameLengthMax);
      this.#insert(change, { id: newId(), email: email.data, name, role: 'member', passwordHash: null }, SYSTEM);
      person = await find();
    }
    if (!person || person.disabledAt !== null) return null;
    change.write([
      'INSERT INTO sign_in_identities (issuer, subject, user_id, created_at) VALUES ($1, $2, $3, $4)',
      [identity.issuer, identity.subject, person.id, new Date()],
    ]);
    const subject = { type: 'user' as const, id: person.id, name: person.name };
    const details = { signsInAlsoAt: identity.issuer };
    this.audit.record(change, { actor: SYSTEM, action: 'user.updated', subject, details });
    return person;
  }

  async byId(id: string): Promise<User | null> {
    const [found] = await this.db.query<UserRow>(`SELECT ${USER_COLUMNS} FROM users WHERE id = $1`, [id]);
    return found ? toUser(found) : null;
  }

  #insert(
    change: Change,
    person: { id: string; email: string; name: string; role: PersonRole; passwordHash: string | null },
    actor: Actor | typeof SYSTEM,
  ): User {
    const row = { ...person, disabledAt: null, createdAt: new Date() };
    change.write(insertInto(UserEntity, row));
    this.audit.record(change, {
      actor,
      action: 'user.created',
      subject: { type: 'user', id: person.id, name: person.name },
      details: { email: person.email, role: person.role },
    });
    return toUser(row);
  }

  #recordPatch(change: Change, actor: Actor, before: UserEntity, after: UserEntity): void {
    const subject = { type: 'user' as const, id: before.id, name: after.name };
    const changes = {
      ...(before.name !== after.name && { name: { from: before.name, to: after.name } }),
      ...(before.role !== after.role && { role: { from: before.role, to: after.role } }),
    };
    if (Object.keys(changes).length)
      this.audit.record(change, { actor, action: 'user.updated', subject, details: changes });
    if ((before.disabledAt === null) !== (after.disabledAt === null))
      this.audit.record(change, { actor, action: after.disabledAt ? 'user.disabled' : 'user.enabled', subject });
  }

  async #mustNotBeLastAdministrator(change: Change, id: string): Promise<void> {
    // Locks every administrator, in order, so that concurrent changes cannot remove the last two together.
    const left = await change.read<{ id: string }>([
      `SELECT id FROM users WHERE role = 'admin' AND disabled_at IS NULL ORDER BY id FOR NO KEY UPDATE`,
    ]);
    if (!left.some((other) => other.id !== id))
      throw conflict('This is the last administrator. Make another person an administrator first.');
  }

  #mustHold(actor: Actor, scope: string): void {
    if (!actor.rights.holds(scope)) throw forbidden(`Only administrators may do this (${scope}).`);
  }
}

/** A token with users:write must not create a person with more rights than the token. */
function mustNotRaise(actor: Actor, role: PersonRole): void {
  if (role === 'admin' && actor.type === 'token')
    throw forbidden('A token cannot create administrators. Sign in to do so.');
}

const USER_COLUMNS = columnsAs(UserEntity, 'users');
type UserRow = Omit<UserEntity, 'passwordHash'>;

const toUser = (row: UserRow): User => ({
  id: row.id,
  email: row.email,
  name: row.name,
  role: row.role,
  disabled: row.disabledAt !== null,
  createdAt: row.createdAt.toISOString(),
});
