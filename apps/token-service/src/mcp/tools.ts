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

/** What the tools work with. */
export interface ToolContext {
  tokens: TokensService;
  reports: ReportsService;
}

/** A tool of the built-in MCP server: a management call by another door, with its scope and its rules. */
export interface Tool {
  name: string;
  title: string;
  description: string;
  /** What the token that carries the request must hold; null: any token. */
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
    description: 'The token that carries this request: its owner, scopes, addresses, rate and end.',
    scope: null,
    input: z.strictObject({}),
    annotations: readOnly,
    run: ({ tokens }, actor) => tokens.self(actor),
  }),
  tool({
    name: 'list_tokens',
    title: 'List tokens',
    description: 'Tokens that may be seen, newest first, revoked and expired ones too. Secrets are never shown.',
    scope: ENDPOINTS.listTokens.scope,
    input: listTokensQuery,
    annotations: readOnly,
    run: ({ tokens }, actor, input) => tokens.list(actor, input),
  }),
  tool({
    name: 'create_token',
    title: 'Issue a token',
    description:
      'Issues a token within the bounds of the one that carries this request, which it dies with. The answer holds its secret, shown this once.',
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
      'Issues a successor with the same rights; the old token ends now or after overlapSeconds. The answer holds the new secret, shown this once; with `effective: true` no verifier anywhere accepts the old one for longer than that.',
    scope: ENDPOINTS.rotateToken.scope,
    input: z.strictObject({ ...withId, overlapSeconds: rotateTokenBody.shape.overlapSeconds }),
    annotations: { readOnlyHint: false, destructiveHint: true, idempotentHint: false, openWorldHint: false },
    run: ({ tokens }, actor, { id, overlapSeconds }) => tokens.rotate(actor, id, { overlapSeconds }),
  }),
  tool({
    name: 'revoke_token',
    title: 'Revoke a token',
    description:
      'Ends a token and all made with it; with reason `exposed` also every secret that the token was ever shown, by issuing or rotating. With `effective: true` in the answer no verifier anywhere accepts any of it any more; `ended` counts what was ended.',
    scope: ENDPOINTS.revokeToken.scope,
    input: z.strictObject({ ...withId, ...revokeTokenBody.shape }),
    annotations: { readOnlyHint: false, destructiveHint: true, idempotentHint: true, openWorldHint: false },
    run: ({ tokens }, actor, { id, ...cause }) => tokens.revoke(actor, id, cause, undefined),
  }),
  tool({
    name: 'token_usage',
    title: 'Usage of a token',
    description: 'Verifications of a token by hour, route and status, and from where they came.',
    scope: ENDPOINTS.tokenUsage.scope,
    input: z.strictObject({ ...withId, ...usageQuery.shape }),
    annotations: readOnly,
    run: ({ reports }, actor, { id, ...range }) => reports.usage(actor, id, range),
  }),
];

/** The tool's input as JSON Schema: an object at the top, as MCP asks, also where the schema has a name of its own. */
function inputSchemaOf(input: z.ZodObject): Record<string, unknown> {
  const { $ref, definitions, ...rest } = z.toJSONSchema(input, { io: 'input', target: 'draft-7' });
  const named: Record<string, object> = { ...(definitions as Record<string, object> | undefined) };
  const name = $ref?.replace('#/definitions/', '');
  const own = name === undefined ? {} : named[name];
  if (name !== undefined) delete named[name];
  return { ...rest, ...own, ...(Object.keys(named).length && { definitions: named }) };
}

/** As `tools/list` answers them. */
export const TOOL_LIST = TOOLS.map(({ name, title, description, input, annotations }) => ({
  name,
  title,
  description,
  inputSchema: inputSchemaOf(input),
  annotations,
}));
