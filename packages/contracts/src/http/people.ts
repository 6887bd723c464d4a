import { z } from 'zod';
import { LIMITS } from '../limits.js';
import { personRoleSchema, projectRoleSchema } from '../scopes.js';
import {
  cursorSchema,
  effectSchema,
  emailSchema,
  idSchema,
  limitSchema,
  lineSchema,
  page,
  textSchema,
  timeSchema,
} from './common.js';
import { passwordSchema } from './sign-in.js';

export const userSchema = z
  .object({
    id: idSchema,
    email: z.string(),
    name: z.string(),
    role: personRoleSchema,
    disabled: z.boolean(),
    createdAt: timeSchema,
  })
  .meta({ id: 'User' });
export type User = z.infer<typeof userSchema>;

export const sessionSchema = z
  .object({
    user: userSchema,
    unsettledRestoreAt: timeSchema.nullable().optional().meta({
      description:
        'when a restore of the database was noticed that is not settled: tokens issued before it are denied as `restored`; null or absent: there is none',
    }),
  })
  .meta({ id: 'Session' });

export const createUserBody = z
  .strictObject({
    email: emailSchema,
    name: lineSchema(LIMITS.nameLengthMax),
    role: personRoleSchema,
    password: passwordSchema.optional(),
  })
  .meta({ id: 'CreateUser' });
export const patchUserBody = z
  .strictObject({
    name: lineSchema(LIMITS.nameLengthMax).optional(),
    role: personRoleSchema.optional(),
    disabled: z.boolean().optional(),
  })
  .refine((b) => Object.keys(b).length > 0, 'name at least one field to change')
  .meta({ id: 'PatchUser' });
export const userEffectSchema = effectSchema.extend({ user: userSchema }).meta({ id: 'UserEffect' });

export const listQuery = z.strictObject({
  q: lineSchema(LIMITS.searchLengthMax).optional(),
  limit: limitSchema,
  cursor: cursorSchema.optional(),
});
export const userPage = page(userSchema).meta({ id: 'UserPage' });

export const memberSchema = z
  .object({
    userId: idSchema,
    name: z.string(),
    email: z.string(),
    role: projectRoleSchema,
  })
  .meta({ id: 'Member' });
export const projectSchema = z
  .object({
    id: idSchema,
    name: z.string(),
    description: z.string(),
    closed: z.boolean(),
    createdAt: timeSchema,
    members: z.array(memberSchema),
    role: projectRoleSchema.nullable().meta({ description: "the caller's own role in it" }),
  })
  .meta({ id: 'Project' });
export type Project = z.infer<typeof projectSchema>;
export const projectPage = page(projectSchema).meta({ id: 'ProjectPage' });
export const createProjectBody = z
  .strictObject({
    name: lineSchema(LIMITS.nameLengthMax),
    description: textSchema(LIMITS.descriptionLengthMax).optional(),
  })
  .meta({ id: 'CreateProject' });
export const patchProjectBody = z
  .strictObject({
    name: lineSchema(LIMITS.nameLengthMax).optional(),
    description: textSchema(LIMITS.descriptionLengthMax).optional(),
  })
  .refine((b) => Object.keys(b).length > 0, 'name at least one field to change')
  .meta({ id: 'PatchProject' });
export const projectEffectSchema = effectSchema.extend({ project: projectSchema }).meta({ id: 'ProjectEffect' });
export const memberParams = z.strictObject({ id: idSchema, userId: idSchema });
export const putMemberBody = z.strictObject({ role: projectRoleSchema }).meta({ id: 'PutMember' });

export const scopeListSchema = z
  .object({
    items: z.array(z.object({ name: z.string(), description: z.string(), grantable: z.boolean() })),
  })
  .meta({ id: 'ScopeList' });
