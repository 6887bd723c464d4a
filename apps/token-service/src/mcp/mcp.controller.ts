import { Body, Controller, Headers, Inject, Post, SetMetadata } from '@nestjs/common';
import type { Actor } from '../authorization/index.js';
import { CONFIG, type TokenServiceConfig } from '../config.js';
import { ApiError, badField, Caller, ENDPOINT_METADATA, type HttpResponse, mediaTypeOf } from '../http/index.js';
import { McpService, PROTOCOL_VERSIONS } from './mcp.service.js';

/** MCP endpoint: open to any token; the token's scopes determine which tools it may use. */
@Controller()
export class McpController {
  constructor(
    private readonly mcp: McpService,
    @Inject(CONFIG) private readonly config: TokenServiceConfig,
  ) {}

  @Post('/mcp')
  @SetMetadata(ENDPOINT_METADATA, 'any-token')
  handle(
    @Caller() actor: Actor,
    @Body() body: unknown,
    @Headers() headers: Record<string, string | undefined>,
  ): Promise<HttpResponse> {
    // DNS rebinding would come from a page of a foreign origin (MCP, Streamable HTTP, security).
    if (headers['origin'] !== undefined && headers['origin'] !== new URL(this.config.PUBLIC_URL).origin)
      throw new ApiError('cross_site', 'This request came from a page of another site.');
    const version = headers['mcp-protocol-version'];
    if (version !== undefined && !PROTOCOL_VERSIONS.some((known) => known === version))
      throw badField('MCP-Protocol-Version', `must be one of ${PROTOCOL_VERSIONS.join(', ')}`);
    if (mediaTypeOf(headers['content-type']) !== 'application/json')
      throw new ApiError('unsupported_media_type', 'Send `Content-Type: application/json`.');
    return this.mcp.handle(actor, body);
  }
}
