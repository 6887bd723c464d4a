import { DOCS_PAGE_POLICY, docsPage, openApiDocument } from '@latchkey/contracts';
import { Controller, Get, Inject, SetMetadata } from '@nestjs/common';
import { CONFIG, type TokenServiceConfig } from '../config.js';
import { HttpResponse } from './call.js';
import { cookieName } from './cookies.js';
import { ENDPOINT_METADATA } from './server.js';

/** The OpenAPI document, and the same as an HTML page. Public. */
@Controller()
export class DocsController {
  readonly #document: string;
  readonly #page: string;

  constructor(@Inject(CONFIG) config: TokenServiceConfig) {
    const document = openApiDocument({ serverUrl: config.PUBLIC_URL, sessionCookie: cookieName(config) });
    this.#document = JSON.stringify(document);
    this.#page = docsPage(document);
  }

  @Get('/v1/openapi.json')
  @SetMetadata(ENDPOINT_METADATA, 'public')
  document() {
    return new HttpResponse(200, this.#document, { 'content-type': 'application/json; charset=utf-8' });
  }

  @Get('/v1/docs')
  @SetMetadata(ENDPOINT_METADATA, 'public')
  page() {
    return new HttpResponse(200, this.#page, {
      'content-type': 'text/html; charset=utf-8',
      'content-security-policy': DOCS_PAGE_POLICY,
    });
  }
}
