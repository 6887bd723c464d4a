import { status } from '@grpc/grpc-js';
import { isId, type Letter, type TakeLettersRequest } from '@latchkey/contracts';
import { Controller } from '@nestjs/common';
import { batchLimit, InternalRpc, refuse } from '../rpc/index.js';
import { PasswordEmailsService } from './password-emails.service.js';

const BATCH_MAX = 50;
const KEYS_MAX = 8;

/** The calls of jobs for password emails: this module's part of `latchkey.internal.v1.Maintenance`. */
@Controller()
export class PasswordEmailsRpc {
  constructor(private readonly passwordEmails: PasswordEmailsService) {}

  /** Callers of the deprecated path name no keys, so they get nothing. */
  @InternalRpc('TakeLetters')
  async take({ limit, keyIds = [] }: Partial<TakeLettersRequest>): Promise<{ letters: Letter[] }> {
    if (keyIds.length > KEYS_MAX) throw refuse(status.INVALID_ARGUMENT, `key_ids: at most ${KEYS_MAX}`);
    return { letters: await this.passwordEmails.take(batchLimit(limit ?? 1, BATCH_MAX), keyIds) };
  }

  @InternalRpc('FinishLetter')
  async finish({ id }: { id: string }): Promise<{ known: boolean }> {
    if (!isId(id)) throw refuse(status.INVALID_ARGUMENT, 'id: must be a UUID');
    return { known: await this.passwordEmails.finish(id) };
  }
}
