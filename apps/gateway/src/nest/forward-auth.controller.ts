import { Controller, Get, Req, Res } from '@nestjs/common';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { Delegated, readConditions } from '../doors/index.js';
import { type Refusal, readHead, renderRefusal } from '../http/index.js';
import { Peers } from './peers.js';

/** `GET /forward-auth` for nginx auth_request, Caddy forward_auth and Traefik ForwardAuth. */
@Controller('forward-auth')
export class ForwardAuthController {
  constructor(
    private readonly delegated: Delegated,
    private readonly peers: Peers,
  ) {}

  @Get()
  async check(@Req() req: FastifyRequest, @Res() reply: FastifyReply): Promise<void> {
    const refuse = (refusal: Refusal, requestId: string) => {
      const { status, headers, body } = renderRefusal(refusal, requestId);
      void reply.code(status).headers(headers).send(body);
    };
    const read = readHead(req.raw, this.peers.isTrustedProxy);
    if ('refusal' in read) return refuse(read.refusal, read.requestId);
    const { head } = read;

    const query = new URL(req.raw.url ?? '/', 'http://gateway').searchParams;
    if (query.has('access_token')) {
      const detail = 'A token must not stand in the query. Send it as "Authorization: Bearer".';
      return refuse({ code: 'invalid_request', detail }, head.requestId);
    }
    const unknown = [...query.keys()].find((name) => name !== 'scope' && name !== 'project');
    if (unknown !== undefined) {
      const detail = `The parameter "${unknown.slice(0, 50)}" is not known; scope and project are.`;
      return refuse({ code: 'invalid_request', detail }, head.requestId);
    }
    const conditions = readConditions(query.getAll('scope'), query.getAll('project'));
    if ('refusal' in conditions) return refuse(conditions.refusal, head.requestId);

    const { 'x-forwarded-method': method, 'x-forwarded-uri': uri } = req.raw.headers;
    const says = method !== undefined || uri !== undefined;
    const believed = says && this.peers.mayForward(this.peers.ipOf(req.raw));
    const { authorization, requestId, ip, userAgent } = head;
    const answer = await this.delegated.answer({
      door: 'forward-auth',
      ...(believed ? { forwarded: { method: String(method ?? 'GET'), uri: String(uri ?? '/') } } : {}),
      ...conditions,
      authorization,
      requestId,
      ip,
      userAgent,
    });
    if ('refusal' in answer) return refuse(answer.refusal, requestId);
    if (says && !believed) {
      // Passing it by in silence would turn every rule of the routes file into "any token will do".
      const detail = `X-Forwarded-Method and -Uri are believed from FORWARD_AUTH_PEERS alone, and ${this.peers.ipOf(req.raw)} is none.`;
      return refuse({ code: 'forbidden', detail }, requestId);
    }
    void reply
      .code(204)
      .headers({ ...answer.identity, 'cache-control': 'no-store' })
      .send();
  }
}
