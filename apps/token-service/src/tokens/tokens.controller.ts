import { Controller, Headers } from '@nestjs/common';
import type { Actor } from '../authorization/index.js';
import { Call, Caller, checkIdempotencyKey, HttpResponse, Input, type InputOf, Prefer } from '../http/index.js';
import { BatchesService } from './batches.service.js';
import { ExposuresService } from './exposures.service.js';
import { ImportService } from './import.service.js';
import { RevokeAllService } from './revoke-all.service.js';
import { TokensService } from './tokens.service.js';

type Wait = number | undefined;

/** HTTP endpoints of tokens. */
@Controller()
export class TokensController {
  constructor(
    private readonly tokens: TokensService,
    private readonly imports: ImportService,
    private readonly exposures: ExposuresService,
    private readonly batches: BatchesService,
    private readonly allTokens: RevokeAllService,
  ) {}

  @Call('issueToken')
  async issue(
    @Caller() actor: Actor,
    @Input() { body }: InputOf<'issueToken'>,
    @Headers('idempotency-key') key: string | string[] | undefined,
  ) {
    const { replayed, token } = await this.tokens.issue(actor, body, checkIdempotencyKey(key));
    return new HttpResponse(replayed ? 200 : 201, token);
  }

  @Call('importTokens')
  async import(@Caller() actor: Actor, @Input() { body }: InputOf<'importTokens'>) {
    return new HttpResponse(201, await this.imports.import(actor, body));
  }

  @Call('listTokens')
  list(@Caller() actor: Actor, @Input() { query }: InputOf<'listTokens'>) {
    return this.tokens.list(actor, query);
  }

  @Call('getSelf')
  getSelf(@Caller() actor: Actor) {
    return this.tokens.self(actor);
  }

  @Call('revokeSelf')
  revokeSelf(@Caller() actor: Actor, @Prefer() waitMs: Wait) {
    return this.tokens.revokeSelf(actor, waitMs);
  }

  @Call('rotateSelf')
  async rotateSelf(@Caller() actor: Actor, @Input() { body }: InputOf<'rotateSelf'>, @Prefer() waitMs: Wait) {
    return new HttpResponse(201, await this.tokens.rotateSelf(actor, body, waitMs));
  }

  @Call('revokeExposed')
  async revokeExposed(@Input() { body }: InputOf<'revokeExposed'>) {
    return new HttpResponse(202, await this.exposures.revokeExposed(body.tokens));
  }

  @Call('revokeTokens')
  revokeMany(@Caller() actor: Actor, @Input() { body }: InputOf<'revokeTokens'>, @Prefer() waitMs: Wait) {
    return body.dryRun ? this.batches.preview(actor, body) : this.batches.revoke(actor, body, waitMs);
  }

  @Call('revokeAllTokens')
  revokeAll(@Caller() actor: Actor, @Input() { body }: InputOf<'revokeAllTokens'>, @Prefer() waitMs: Wait) {
    return this.allTokens.revokeAll(actor, body, waitMs);
  }

  @Call('getToken')
  get(@Caller() actor: Actor, @Input() { params }: InputOf<'getToken'>) {
    return this.tokens.get(actor, params.id);
  }

  @Call('patchToken')
  patch(@Caller() actor: Actor, @Input() input: InputOf<'patchToken'>, @Prefer() waitMs: Wait) {
    return this.tokens.patch(actor, input.params.id, input.body, waitMs);
  }

  @Call('revokeToken')
  revoke(@Caller() actor: Actor, @Input() input: InputOf<'revokeToken'>, @Prefer() waitMs: Wait) {
    return this.tokens.revoke(actor, input.params.id, input.body, waitMs);
  }

  @Call('deleteToken')
  delete(@Caller() actor: Actor, @Input() { params }: InputOf<'deleteToken'>, @Prefer() waitMs: Wait) {
    return this.tokens.revoke(actor, params.id, { reason: 'unspecified' }, waitMs);
  }

  @Call('rotateToken')
  async rotate(@Caller() actor: Actor, @Input() input: InputOf<'rotateToken'>, @Prefer() waitMs: Wait) {
    return new HttpResponse(201, await this.tokens.rotate(actor, input.params.id, input.body, waitMs));
  }

  @Call('listScopes')
  scopes(@Caller() actor: Actor) {
    return this.tokens.listScopes(actor);
  }
}
