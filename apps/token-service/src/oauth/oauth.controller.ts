import { Controller } from '@nestjs/common';
import type { Actor } from '../authorization/index.js';
import { Call, Caller, HttpResponse, Input, type InputOf } from '../http/index.js';
import { OAuthService } from './oauth.service.js';

/** OAuth 2.0 endpoints: introspection (RFC 7662) and revocation (RFC 7009). */
@Controller()
export class OAuthController {
  constructor(private readonly oauth: OAuthService) {}

  @Call('introspect')
  introspect(@Caller() actor: Actor, @Input() { body }: InputOf<'introspect'>) {
    return this.oauth.introspect(actor, body.token);
  }

  @Call('oauthRevoke')
  async revoke(@Caller() actor: Actor, @Input() { body }: InputOf<'oauthRevoke'>) {
    await this.oauth.revoke(actor, body.token);
    return new HttpResponse(200);
  }
}
