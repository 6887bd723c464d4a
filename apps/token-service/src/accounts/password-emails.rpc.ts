import { status } from '@grpc/grpc-js';
import { isId, type Letter, type TakeLettersRequest } from '@latchkey/contracts';
import { Controller } from '@nestjs/common';
import { batchLimit, InternalRpc, refuse } from '../rpc/index.js';
import { PasswordEmailsService } from './password-emails.service.js';

const LETTERS_MAX = 50;
const KEYS_MAX = 8;

/** What jobs asks about letters: `latchkey.internal.v1.Maintenance`, this room's part. */
@Controller()
export class PasswordEmailsRpc {
  constructor(private readonly passwordEmails: PasswordEmailsService) {}

  /** By the deprecated path no keys are named, so nothing is handed out. */
  @InternalRpc('TakeLetters')
  async take({ limit, keyIds = [] }: Partial<TakeLettersRequest>): Promise<{ letters: Letter[] }> {
    if (keyIds.length > KEYS_MAX) throw refuse(status.INVALID_ARGUMENT, `key_ids: at most ${KEYS_MAX}`);
    return { letters: await this.passwordEmails.take(batchLimit(limit ?? 1, LETTERS_MAX), keyIds) };
  }

  @InternalRpc('FinishLetter')
  async finish({ id }: { id: string }): Promise<{ known: boolean }> {
    if (!isId(id)) throw refuse(status.INVALID_ARGUMENT, 'id: must be a UUID');
    return { known: await this.passwordEmails.finish(id) };
  }
}
