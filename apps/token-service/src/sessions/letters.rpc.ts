import { status } from '@grpc/grpc-js';
import { idSchema, type Letter } from '@latchkey/contracts';
import { Controller, UseFilters, UseGuards } from '@nestjs/common';
import { GrpcMethod } from '@nestjs/microservices';
import { FirstPartyOnly, RpcCallerGuard, RpcErrorFilter, refuse } from '../rpc/index.js';
import { LettersService } from './letters.service.js';

const LETTERS_MAX = 50;

/** What jobs asks about letters: `latchkey.v1.Maintenance`, this room's part. */
@Controller()
@FirstPartyOnly()
@UseGuards(RpcCallerGuard)
@UseFilters(RpcErrorFilter)
export class LettersRpc {
  constructor(private readonly letters: LettersService) {}

  @GrpcMethod('Maintenance', 'TakeLetters')
  async take({ limit }: { limit: number }): Promise<{ letters: Letter[] }> {
    return { letters: await this.letters.take(Math.min(Math.max(limit, 1), LETTERS_MAX)) };
  }

  @GrpcMethod('Maintenance', 'FinishLetter')
  async finish({ id }: { id: string }): Promise<{ known: boolean }> {
    if (!idSchema.safeParse(id).success) throw refuse(status.INVALID_ARGUMENT, 'id: must be a UUID');
    return { known: await this.letters.finish(id) };
  }
}
