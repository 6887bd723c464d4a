import {
  ENDPOINTS,
  idSchema,
  issueTokenBody,
  listTokensQuery,
  revokeTokenBody,
  rotateTokenBody,
  usageQuery,
} from '@latchkey/contracts';
import { z } from 'zod';
import type { Actor } from '../authorization/index.js';
import type { ReportsService, TokensService } from '../tokens/index.js';

/** The services that tools use. */
export interface ToolContext {
  tokens: TokensService;
  reports: ReportsService;
}

/** A tool of the built-in MCP server: a management call with the same scope and rules. */
export interface Tool {
  name: string;
  title: string;
  description: string;
  /** Scope that the token of the request must hold; null: any token. */
  scope: string | null;
  input: z.ZodObject;
  annotations: { readOnlyHint: boolean; destructiveHint?: boolean; idempotentHint?: boolean; openWorldHint: false };
  run(context: ToolContext, actor: Actor, input: never): Promise<unknown>;
}

/** Ties the type of a tool's input to its schema. */
function tool<S extends z.ZodObject>(
  definition: Omit<Tool, 'input' | 'run'> & {
    input: S;
    run(context: ToolContext, actor: Actor, input: z.output<S>): Promise<unknown>;
  },
): Tool {
  return definition as unknown as Tool;
}

const readOnly = { readOnlyHint: true, openWorldHint: false } as const;
const withId = { id: idSchema.describe('id of the token') };

export const TOOLS: readonly Tool[] = [
  tool({
    name: 'whoami',
    title: 'Who am I',
    description: 'The token that carries this request: its owner, scopes, addresses, rate limit and expiry.',
    scope: null,
    input: z.strictObject({}),
    annotations: readOnly,
    run: ({ tokens }, actor) => tokens.self(actor),
  }),
  tool({
    name: 'list_tokens',
    title: 'List tokens',
    description: 'The visible tokens, newest first, including revoked and expired ones. Secrets are never shown.',
    scope: ENDPOINTS.listTokens.scope,
    input: listTokensQuery,
    annotations: readOnly,
    run: ({ tokens }, actor, input) => tokens.list(actor, input),
  }),
  tool({
    name: 'create_token',
    title: 'Issue a token',
    description:
      'Issues a token within the bounds of the one that carries this request, and revoked with it. The result contains its secret, shown only once.',
    scope: ENDPOINTS.issueToken.scope,
    input: issueTokenBody as unknown as z.ZodObject<(typeof issueTokenBody)['shape']>,
    annotations: { readOnlyHint: false, destructiveHint: false, idempotentHint: false, openWorldHint: false },
    run: async ({ tokens }, actor, input) =>
      (await tokens.issue(actor, input as z.output<typeof issueTokenBody>)).token,
  }),
  tool({
    name: 'rotate_token',
    title: 'Rotate a token',
    description:
      'Issues a successor with the same rights; the old token expires now or after overlapSeconds. The result contains the new secret, shown only once; with `effective: true` no verifier accepts the old one for longer than that.',
    scope: ENDPOINTS.rotateToken.scope,
    input: z.strictObject({ ...withId, overlapSeconds: rotateTokenBody.shape.overlapSeconds }),
    annotations: { readOnlyHint: false, destructiveHint: true, idempotentHint: false, openWorldHint: false },
    run: ({ tokens }, actor, { id, overlapSeconds }) => tokens.rotate(actor, id, { overlapSeconds }),
  }),
  tool({
    name: 'revoke_token',
    title: 'Revoke a token',
    description:
      'Revokes a token and its descendants; with reason `exposed` also every token whose secret it was ever shown, by issuing or rotating. With `effective: true` in the result no verifier accepts any of them any more; `ended` counts the revoked tokens.',
    scope: ENDPOINTS.revokeToken.scope,
    input: z.strictObject({ ...withId, ...revokeTokenBody.shape }),
    annotations: { readOnlyHint: false, destructiveHint: true, idempotentHint: true, openWorldHint: false },
    run: ({ tokens }, actor, { id, ...cause }) => tokens.revoke(actor, id, cause, undefined),
  }),
  tool({
    name: 'token_usage',
    title: 'Usage of a token',
    description: 'Verifications of a token by hour, route and status, and its callers.',
    scope: ENDPOINTS.tokenUsage.scope,
    input: z.strictObject({ ...withId, ...usageQuery.shape }),
    annotations: readOnly,
    run: ({ reports }, actor, { id, ...range }) => reports.usage(actor, id, range),
  }),
];

/** The tool's input as JSON Schema, with the object at the top level as MCP requires, also for a named schema. */
function inputSchemaOf(input: z.ZodObject): Record<string, unknown> {
  const { $ref, definitions, ...rest } = z.toJSONSchema(input, { io: 'input', target: 'draft-7' });
  const named: Record<string, object> = { ...(definitions as Record<string, object> | undefined) };
  const name = $ref?.replace('#/definitions/', '');
  const own = name === undefined ? {} : named[name];
  if (name !== undefined) delete named[name];
  return { ...rest, ...own, ...(Object.keys(named).length && { definitions: named }) };
}

/** The result of `tools/list`. */
export const TOOL_LIST = TOOLS.map(({ name, title, description, input, annotations }) => ({
  name,
  title,
  description,
  inputSchema: inputSchemaOf(input),
  annotations,
}));
