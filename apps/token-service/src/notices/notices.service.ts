import { NOTICE_KINDS, type NoticeChoices, type NoticeKind, type PutNoticeChoicesBody } from '@latchkey/contracts';
import { Injectable } from '@nestjs/common';
import type { Actor } from '../authorization/index.js';
import { Database } from '../database/index.js';
import { ApiError } from '../http/index.js';

/** Which notices a person gets, and by which channel. Default: all of them, by every channel. Jobs reads this and sends them. */
@Injectable()
export class NoticesService {
  constructor(private readonly db: Database) {}

  async choicesOf(actor: Actor): Promise<NoticeChoices> {
    const chosen = await this.db.query<{ kind: string; email: boolean; webhook: boolean }>(
      'SELECT kind, email, webhook FROM notice_choices WHERE user_id = $1',
      [personOf(actor)],
    );
    const items = (Object.entries(NOTICE_KINDS) as [NoticeKind, string][]).map(([kind, description]) => {
      const { email = true, webhook = true } = chosen.find((c) => c.kind === kind) ?? {};
      return { kind, description, email, webhook };
    });
    return { items };
  }

  /** @throws ApiError `forbidden` for a token, which must not be able to turn off the notices about itself */
  async choose(actor: Actor, { items }: PutNoticeChoicesBody): Promise<NoticeChoices> {
    if (actor.type !== 'user')
      throw new ApiError('forbidden', 'A token may not change which notices its owner gets. Sign in to do so.');
    await this.db.query(
      `INSERT INTO notice_choices (user_id, kind, email, webhook)
       SELECT $1, c.kind, c.email, c.webhook FROM jsonb_to_recordset($2::jsonb) AS c(kind text, email boolean, webhook boolean)
       ORDER BY c.kind ON CONFLICT (user_id, kind) DO UPDATE SET email = excluded.email, webhook = excluded.webhook`,
      [actor.userId, JSON.stringify(items)],
    );
    return this.choicesOf(actor);
  }
}

function personOf(actor: Actor): string {
  if (actor.userId !== null) return actor.userId;
  throw new ApiError('forbidden', 'A project token acts for a project; notices go to people.');
}
