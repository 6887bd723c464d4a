import { Controller } from '@nestjs/common';
import type { Actor } from '../authorization/index.js';
import { Call, Caller, HttpResponse, Input, type InputOf, Prefer } from '../http/index.js';
import { ProjectsService } from './projects.service.js';

/** HTTP endpoints of projects. */
@Controller()
export class ProjectsController {
  constructor(private readonly projects: ProjectsService) {}

  @Call('listProjects')
  list(@Caller() actor: Actor, @Input() { query }: InputOf<'listProjects'>) {
    return this.projects.list(actor, query);
  }

  @Call('createProject')
  async create(@Caller() actor: Actor, @Input() { body }: InputOf<'createProject'>) {
    return new HttpResponse(201, await this.projects.create(actor, body));
  }

  @Call('patchProject')
  patch(@Caller() actor: Actor, @Input() { params, body }: InputOf<'patchProject'>) {
    return this.projects.patch(actor, params.id, body);
  }

  @Call('closeProject')
  close(@Caller() actor: Actor, @Input() { params }: InputOf<'closeProject'>, @Prefer() waitMs: number | undefined) {
    return this.projects.close(actor, params.id, waitMs);
  }

  @Call('putMember')
  putMember(
    @Caller() actor: Actor,
    @Input() { params, body }: InputOf<'putMember'>,
    @Prefer() waitMs: number | undefined,
  ) {
    return this.projects.putMember(actor, params.id, params.userId, body.role, waitMs);
  }

  @Call('removeMember')
  removeMember(
    @Caller() actor: Actor,
    @Input() { params }: InputOf<'removeMember'>,
    @Prefer() waitMs: number | undefined,
  ) {
    return this.projects.removeMember(actor, params.id, params.userId, waitMs);
  }
}
