import type { createProjectBody, Effect, listQuery, Project, ProjectRole, patchProjectBody } from '@latchkey/contracts';
import { newId } from '@latchkey/runtime';
import { Injectable } from '@nestjs/common';
import type { z } from 'zod';
import { type AuditEntry, AuditService } from '../audit/index.js';
import type { Actor } from '../authorization/index.js';
import { type Change, Database, deleteFrom, insertInto, update } from '../database/index.js';
import { conflict, forbidden, keysetPage, lacksScope, notFound, type Page } from '../http/index.js';
import { InvalidationService } from '../invalidation/index.js';
import { LocksService } from '../verification/index.js';
import { MemberEntity, ProjectEntity } from './project.entity.js';

type ProjectEffect = Effect & { project: Project };

interface ProjectRow {
  id: string;
  name: string;
  description: string;
  closed_at: Date | null;
  created_at: Date;
  members: Project['members'] | null;
}

const SELECT_PROJECTS = `
SELECT p.id, p.name, p.description, p.closed_at, p.created_at, (
  SELECT json_agg(json_build_object('userId', u.id, 'name', u.name, 'email', u.email, 'role', m.role) ORDER BY m.created_at, u.id)
  FROM members m JOIN users u ON u.id = m.user_id WHERE m.project_id = p.id
) AS members FROM projects p`;

/** Projects and their members. */
@Injectable()
export class ProjectsService {
  constructor(
    private readonly db: Database,
    private readonly audit: AuditService,
    private readonly locks: LocksService,
    private readonly invalidations: InvalidationService,
  ) {}

  /** The projects that the caller belongs to, or all for administrators; includes closed ones. */
  async list(actor: Actor, query: z.output<typeof listQuery>): Promise<Page<Project>> {
    const values: unknown[] = [];
    const where: string[] = [];
    const seen = actor.rights.projectsWith('projects:read');
    if (seen !== 'all') {
      values.push(seen);
      let visible = 'id = ANY ($1)';
      if (actor.rights.holds('projects:read')) {
        // A closed project gives no rights, but stays visible to its members.
        values.push(actor.userId);
        visible += ' OR id IN (SELECT m.project_id FROM members m WHERE m.user_id = $2)';
      }
      where.push(`(${visible})`);
    }
    if (query.q) {
      values.push(`%${query.q.toLowerCase().replace(/[\\%_]/g, '\\$&')}%`);
      where.push(`lower(name) LIKE $${values.length}`);
    }
    return keysetPage(query, { values, where }, async ({ where, values, tail }) =>
      (await this.db.query<ProjectRow>(`SELECT * FROM (${SELECT_PROJECTS}) p ${where} ${tail}`, values)).map((row) =>
        toProject(row, actor),
      ),
    );
  }

  /** Creates a project; the caller becomes its owner. */
  async create(actor: Actor, body: z.output<typeof createProjectBody>): Promise<Project> {
    return this.db.change(async (change) => {
      const { now } = await this.locks.lock(change, actor, { change: { users: actor.userId ? [actor.userId] : [] } });
      if (!now.rights.holds('projects:write')) throw this.#lacks(now);
      if (now.userId === null) throw forbidden('A project token cannot create projects: they need a person as owner.');
      const id = newId();
      const createdAt = new Date();
      const description = body.description ?? '';
      const project = { id, name: body.name, description, closedAt: null, createdAt };
      change.write(insertInto(ProjectEntity, project));
      change.write(insertInto(MemberEntity, { projectId: id, userId: now.userId, role: 'owner', createdAt }));
      const created = await this.#read(change, id, now);
      this.#record(change, now, 'project.created', created);
      return created;
    });
  }

  async patch(actor: Actor, id: string, body: z.output<typeof patchProjectBody>): Promise<Project> {
    return this.db.change(async (change) => {
      const { now, project: before } = await this.#lockForChange(change, actor, id);
      const changes = {
        ...(body.name !== undefined && { name: body.name }),
        ...(body.description !== undefined && { description: body.description }),
      };
      change.write(update(ProjectEntity, { id }, changes));
      const after = await this.#read(change, id, now);
      this.#record(change, now, 'project.updated', after, {
        ...(before.name !== after.name && { name: { from: before.name, to: after.name } }),
        ...(before.description !== after.description && { description: true }),
      });
      return after;
    });
  }

  /** Closes a project: its tokens are no longer accepted, and no one holds a scope in it. Safe to repeat. */
  async close(actor: Actor, id: string, waitMs: number | undefined): Promise<ProjectEffect> {
    return this.#changeRights(waitMs, async (change) => {
      const { now, project: before } = await this.#lockForChange(change, actor, id, { allowClosed: true });
      if (before.closed) return { project: before, subjects: [{ kind: 'project', subject: id, cut: false }] };
      change.write(update(ProjectEntity, { id }, { closedAt: new Date() }));
      const project = await this.#read(change, id, now);
      this.#record(change, now, 'project.closed', project);
      return { project, subjects: [{ kind: 'project', subject: id, cut: false }] };
    });
  }

  /** Adds a member or changes their role. */
  async putMember(
    actor: Actor,
    id: string,
    userId: string,
    role: ProjectRole,
    waitMs: number | undefined,
  ): Promise<ProjectEffect> {
    return this.#changeRights(waitMs, async (change) => {
      const { now, project } = await this.#lockForChange(change, actor, id, { user: userId });
      const [person] = await change.read<{ name: string }>(['SELECT name FROM users WHERE id = $1', [userId]]);
      if (!person) throw notFound('person');
      const before = project.members.find((member) => member.userId === userId);
      // A repeat waits for confirmation too: the first change can be unconfirmed.
      const subjects = [{ kind: 'owner' as const, subject: userId, cut: false }];
      if (before?.role === role) return { project, subjects };
      if (before?.role === 'owner') mustKeepAnOwner(project, userId);
      const subject = { type: 'member' as const, id: userId, name: person.name };
      if (before) {
        change.write(update(MemberEntity, { projectId: id, userId }, { role }));
        this.audit.record(change, {
          actor: now,
          action: 'member.changed',
          projectId: id,
          subject,
          details: { role: { from: before.role, to: role } },
        });
      } else {
        change.write(insertInto(MemberEntity, { projectId: id, userId, role, createdAt: new Date() }));
        this.audit.record(change, { actor: now, action: 'member.added', projectId: id, subject, details: { role } });
      }
      return { project: await this.#read(change, id, now), subjects };
    });
  }

  /** Removes a member. */
  async removeMember(actor: Actor, id: string, userId: string, waitMs: number | undefined): Promise<ProjectEffect> {
    return this.#changeRights(waitMs, async (change) => {
      const { now, project } = await this.#lockForChange(change, actor, id, { user: userId });
      const member = project.members.find((other) => other.userId === userId);
      if (!member) throw notFound('member');
      if (member.role === 'owner') mustKeepAnOwner(project, userId);
      change.write(deleteFrom(MemberEntity, { projectId: id, userId }));
      const subject = { type: 'member' as const, id: userId, name: member.name };
      this.audit.record(change, {
        actor: now,
        action: 'member.removed',
        projectId: id,
        subject,
        details: { role: member.role },
      });
      return { project: await this.#read(change, id, now), subjects: [{ kind: 'owner', subject: userId, cut: false }] };
    });
  }

  /** Runs a change of rights, then waits until it is effective. */
  async #changeRights(
    waitMs: number | undefined,
    work: (
      change: Change,
    ) => Promise<{ project: Project; subjects: { kind: 'owner' | 'project'; subject: string; cut: boolean }[] }>,
  ): Promise<ProjectEffect> {
    const { project, written } = await this.db.change(async (change) => {
      const { project, subjects } = await work(change);
      return { project, written: this.invalidations.writeAll(change, subjects) };
    });
    return { project, ...(await this.invalidations.confirm(written, { waitMs, about: { projectId: project.id } })) };
  }

  /** Locks the project, the actor and the person concerned, and checks that the actor may change the project. */
  async #lockForChange<A extends Actor>(
    change: Change,
    actor: A,
    id: string,
    options: { user?: string; allowClosed?: boolean } = {},
  ): Promise<{ now: A; project: Project }> {
    const changed = { projects: [id], users: options.user ? [options.user] : [] };
    const { now } = await this.locks.lock(change, actor, { change: changed });
    const project = await this.#find(change, id, now);
    const isMember = project?.members.some(({ userId }) => userId === now.userId) ?? false;
    if (!project || !(now.rights.belongsTo(id) || (project.closed && isMember))) throw notFound('project');
    if (project.closed && !options.allowClosed) throw conflict('The project is closed and cannot be changed.');
    const isOwnerOfClosed =
      project.closed && project.members.some((m) => m.userId === now.userId && m.role === 'owner');
    if (!now.rights.holds('projects:write', id) && !isOwnerOfClosed) throw this.#lacks(now);
    return { now, project };
  }

  async #find(change: Change, id: string, actor: Actor): Promise<Project | null> {
    const [row] = await change.read<ProjectRow>([`${SELECT_PROJECTS} WHERE p.id = $1`, [id]]);
    return row ? toProject(row, actor) : null;
  }

  async #read(change: Change, id: string, actor: Actor): Promise<Project> {
    return (await this.#find(change, id, actor))!;
  }

  #record(
    change: Change,
    actor: Actor,
    action: AuditEntry['action'],
    project: Project,
    details: Record<string, unknown> = {},
  ) {
    const subject = { type: 'project' as const, id: project.id, name: project.name };
    return this.audit.record(change, { actor, action, projectId: project.id, subject, details });
  }

  #lacks(actor: Actor) {
    if (actor.type === 'token') return lacksScope(['projects:write']);
    return forbidden("Only the project's owners and administrators may change it.");
  }
}

function mustKeepAnOwner(project: Project, withoutUserId: string): void {
  if (!project.members.some(({ userId, role }) => role === 'owner' && userId !== withoutUserId))
    throw conflict("This is the project's last owner. Make another member an owner first.");
}

function toProject(row: ProjectRow, actor: Actor): Project {
  const members = row.members ?? [];
  return {
    id: row.id,
    name: row.name,
    description: row.description,
    closed: row.closed_at !== null,
    createdAt: row.created_at.toISOString(),
    members,
    role: members.find(({ userId }) => userId === actor.userId)?.role ?? null,
  };
}
