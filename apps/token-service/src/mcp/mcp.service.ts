import type { Logger } from '@latchkey/runtime';
import { Inject, Injectable } from '@nestjs/common';
import { z } from 'zod';
import type { Actor } from '../authorization/index.js';
import { LOGGER } from '../config.js';
import { isDatabaseUnavailable } from '../database/index.js';
import { ApiError, badField, HttpResponse, lacksScope, parseWith, RatesService, tooMany } from '../http/index.js';
import { ReportsService, TokensService } from '../tokens/index.js';
import { LocksService } from '../verification/index.js';
import { TOOL_LIST, TOOLS, type Tool } from './tools.js';

/** Newest first. Only the oldest has batches; they are accepted with every version. */
export const PROTOCOL_VERSIONS = ['2025-11-25', '2025-06-18', '2025-03-26'] as const;
const BATCH_MAX = 20;

const idSchema = z.union([z.string().max(200), z.int()]);
const messageSchema = z.object({
  jsonrpc: z.literal('2.0'),
  id: idSchema.optional(),
  method: z.string().max(100),
  params: z.record(z.string(), z.unknown()).optional(),
});
type Message = z.output<typeof messageSchema>;
/** A client's response to a request of the server, which sends none. */
const responseSchema = z.object({
  jsonrpc: z.literal('2.0'),
  id: idSchema,
  result: z.unknown().optional(),
  error: z.unknown().optional(),
});
const callSchema = z.object({ name: z.string().max(100), arguments: z.record(z.string(), z.unknown()).default({}) });
const initializeSchema = z.object({ protocolVersion: z.string().max(50) });

type Reply = { jsonrpc: '2.0'; id: string | number | null } & (
  | { result: unknown }
  | { error: { code: number; message: string } }
);

/** An error of the message itself (JSON-RPC 2.0 section 5.1). */
class RpcError extends Error {
  constructor(
    readonly code: -32600 | -32601 | -32602 | -32603,
    message: string,
  ) {
    super(message);
  }
}

/** The built-in MCP server (Streamable HTTP, JSON mode, no sessions): the management calls as tools for assistants. */
@Injectable()
export class McpService {
  constructor(
    private readonly tokens: TokensService,
    private readonly reports: ReportsService,
    private readonly rates: RatesService,
    private readonly locks: LocksService,
    @Inject(LOGGER) private readonly logger: Logger,
  ) {}

  /**
   * Handles one message or a batch, whose messages each count towards the token's rate limit.
   * @throws ApiError `insufficient_scope` when any message calls a tool that the token may not use; no message has been handled then
   */
  async handle(actor: Actor, body: unknown): Promise<HttpResponse> {
    const isBatch = Array.isArray(body);
    const given: unknown[] = isBatch ? body : [body];
    if (given.length === 0 || given.length > BATCH_MAX)
      throw badField('body', `a batch has 1 to ${BATCH_MAX} messages`);
    await this.#countMore(actor, given.length - 1);
    const messages = given.map((one) => ({ given: one, message: messageSchema.safeParse(one) }));
    for (const { message } of messages) if (message.success) mayCall(actor, message.data);
    const replies: Reply[] = [];
    for (const [index, { given: one, message }] of messages.entries()) {
      const reply = message.success
        ? await this.#reply(actor, message.data, isBatch, index > 0)
        : responseSchema.safeParse(one).success
          ? null
          : fault(null, new RpcError(-32600, 'not a JSON-RPC 2.0 message'));
      if (reply) replies.push(reply);
    }
    if (replies.length === 0) return new HttpResponse(202);
    const status = !isBatch && 'error' in replies[0]! && replies[0].error.code === -32600 ? 400 : 200;
    return new HttpResponse(status, isBatch ? replies : replies[0], {
      'content-type': 'application/json; charset=utf-8',
    });
  }

  /** The request itself has been counted as one use. */
  async #countMore(actor: Actor, uses: number): Promise<void> {
    if (uses === 0 || actor.type !== 'token' || !actor.snapshot.rates?.length) return;
    const rate = await this.rates.use(actor.tokenId, actor.snapshot.rates, uses);
    if (!rate.allowed) throw tooMany(rate, { reason: 'rate_limited', tokenId: actor.tokenId });
  }

  /** @param isLater not the first of a batch: the caller can have been revoked since the first */
  async #reply(actor: Actor, message: Message, isBatch: boolean, isLater: boolean): Promise<Reply | null> {
    const { id } = message;
    if (id === undefined) return null; // a notification, which no method here needs
    try {
      if (isLater) await this.#mustStillBe(actor);
      return { jsonrpc: '2.0', id, result: await this.#result(actor, message, isBatch) };
    } catch (error) {
      if (error instanceof RpcError) return fault(id, error);
      throw error;
    }
  }

  async #mustStillBe(actor: Actor): Promise<void> {
    try {
      await this.locks.mustStillBe(actor);
    } catch (error) {
      throw error instanceof ApiError ? new RpcError(-32600, error.message) : error;
    }
  }

  async #result(actor: Actor, { method, params }: Message, isBatch: boolean): Promise<unknown> {
    switch (method) {
      case 'initialize': {
        if (isBatch) throw new RpcError(-32600, 'initialize must not be part of a batch');
        const requested = initializeSchema.safeParse(params);
        if (!requested.success) throw new RpcError(-32602, 'protocolVersion: is required');
        const known = PROTOCOL_VERSIONS.find((version) => version === requested.data.protocolVersion);
        return {
          protocolVersion: known ?? PROTOCOL_VERSIONS[0],
          capabilities: { tools: {} },
          serverInfo: { name: 'latchkey', title: 'Latchkey', version: '1.0.0' },
          instructions:
            'Manage API tokens. The token that carries the request bounds what a tool may do; call whoami to see it.',
        };
      }
      case 'ping':
        return {};
      case 'tools/list':
        return { tools: TOOL_LIST };
      case 'tools/call':
        return this.#call(actor, params, isBatch);
      default:
        throw new RpcError(-32601, `there is no method ${method}`);
    }
  }

  async #call(actor: Actor, params: unknown, isBatch: boolean): Promise<unknown> {
    const call = callSchema.safeParse(params);
    if (!call.success) throw new RpcError(-32602, 'name and arguments: must be a tool and an object');
    const tool = toolNamed(call.data.name);
    if (!tool) throw new RpcError(-32602, `there is no tool ${call.data.name}`);
    try {
      const input = parseWith(tool.input, call.data.arguments, 'body');
      const output = await tool.run({ tokens: this.tokens, reports: this.reports }, actor, input as never);
      return { content: [{ type: 'text', text: JSON.stringify(output) }], structuredContent: output };
    } catch (error) {
      return this.#failed(error, isBatch);
    }
  }

  /** Errors that the assistant can act on become the tool's result; the others become the HTTP response. */
  #failed(error: unknown, isBatch: boolean): unknown {
    const isTransportError =
      error instanceof ApiError && ['insufficient_scope', 'invalid_token', 'restored'].includes(error.code);
    if (!isBatch && (isTransportError || !(error instanceof ApiError))) throw error;
    if (error instanceof ApiError) return toolError(`${error.code}: ${error.detail}`);
    if (isDatabaseUnavailable(error)) return toolError('unavailable: the database does not respond; try again.');
    this.logger.error({ err: error }, 'a tool failed');
    throw new RpcError(-32603, 'something went wrong here');
  }
}

const toolNamed = (name: string): Tool | undefined => TOOLS.find((tool) => tool.name === name);

const toolError = (text: string) => ({ content: [{ type: 'text', text }], isError: true });

const fault = (id: Reply['id'], { code, message }: RpcError): Reply => ({
  jsonrpc: '2.0',
  id,
  error: { code, message },
});

function mayCall(actor: Actor, { method, params }: Message): void {
  if (method !== 'tools/call') return;
  const scope = toolNamed(String(params?.['name']))?.scope;
  if (scope && !actor.rights.holdsSomewhere(scope)) throw lacksScope([scope]);
}
