import { BadRequestException, Body, Controller, Get, Param, Post } from '@nestjs/common';
import { Caller, type Principal, Public, Requires } from './bearer.guard.js';

const NOTES_MAX = 1_000;

interface Note {
  project: string;
  text: string;
  /** `user:<id>` or `project:<id>`. */
  by: string;
}

/** Something to guard: short notes by project, in memory, the newest thousand. */
@Controller()
export class NotesController {
  private readonly notes: Note[] = [];

  @Public()
  @Get('healthz')
  health() {
    return { status: 'ok' };
  }

  /** Any token in force will do. */
  @Get('whoami')
  whoami(@Caller() caller: Principal) {
    return caller;
  }

  @Requires({ scopes: ['demo:read'], project: 'project' })
  @Get('projects/:project/notes')
  list(@Param('project') project: string) {
    return { items: this.notes.filter((note) => note.project === project) };
  }

  @Requires({ scopes: ['demo:write'], project: 'project' })
  @Post('projects/:project/notes')
  add(@Param('project') project: string, @Body() body: unknown, @Caller() caller: Principal) {
    const text = (body as { text?: unknown } | undefined)?.text;
    if (typeof text !== 'string' || text.length < 1 || text.length > 1_000) {
      throw new BadRequestException('text must be text of 1 to 1000 characters');
    }
    const note = { project, text, by: caller.owner };
    this.notes.push(note);
    if (this.notes.length > NOTES_MAX) this.notes.shift();
    return note;
  }
}
