import { z } from 'zod';
import { LIMITS } from '../limits.js';
import { emailSchema, idSchema, lineSchema, timeSchema } from './common.js';

export const passwordSchema = z
  .string()
  .min(LIMITS.passwordLengthMin, `at least ${LIMITS.passwordLengthMin} characters`)
  .max(LIMITS.passwordLengthMax);
/** A one-time code of an authenticator app (RFC 6238). */
export const oneTimeCodeSchema = z.string().regex(/^\d{6}$/, 'six digits');
/** As presented, whatever the rules for new ones are. */
const presentedPassword = z.string().min(1).max(LIMITS.passwordLengthMax);

export const signInBody = z
  .strictObject({
    email: lineSchema(LIMITS.emailLengthMax),
    password: presentedPassword,
    code: oneTimeCodeSchema.optional(),
  })
  .meta({ id: 'SignIn' });

/** How people may sign in here. */
export const signInOptionsSchema = z
  .object({
    password: z.boolean(),
    oidc: z
      .object({ name: z.string(), url: z.string() })
      .nullable()
      .meta({ description: 'another sign-in service: open `url` in the browser' }),
  })
  .meta({ id: 'SignInOptions' });

export const ownSessionSchema = z
  .object({
    id: idSchema,
    current: z.boolean().meta({ description: 'the one that makes this request' }),
    createdAt: timeSchema,
    seenAt: timeSchema,
    expiresAt: timeSchema,
    ip: z.string(),
    userAgent: z.string(),
  })
  .meta({ id: 'OwnSession' });
export type OwnSession = z.infer<typeof ownSessionSchema>;
export const ownSessionListSchema = z.object({ items: z.array(ownSessionSchema) });

export const changePasswordBody = z.strictObject({ currentPassword: presentedPassword, newPassword: passwordSchema });
/** Handed over by an administrator, by any way that reaches the person alone. */
export const passwordResetSchema = z
  .object({ code: z.string().meta({ description: 'works once, within its time' }), expiresAt: timeSchema })
  .meta({ id: 'PasswordReset' });
export const setPasswordBody = z.strictObject({
  email: emailSchema,
  code: z.string().min(1).max(100),
  newPassword: passwordSchema,
});

export const secondFactorSchema = z.object({ enabled: z.boolean() }).meta({ id: 'SecondFactor' });
export const startSecondFactorBody = z.strictObject({ password: presentedPassword });
export const startedSecondFactorSchema = z
  .object({
    secret: z.string().meta({ description: 'base32, for typing into an authenticator app; shown once' }),
    uri: z.string().meta({ description: 'the same as an otpauth: address, for a QR code' }),
  })
  .meta({ id: 'StartedSecondFactor' });
export const confirmSecondFactorBody = z.strictObject({ code: oneTimeCodeSchema });
export const removeSecondFactorBody = z.strictObject({ password: presentedPassword, code: oneTimeCodeSchema });

/** What the other sign-in service sends back (RFC 6749 section 4.1.2, RFC 9207). */
export const oidcCallbackQuery = z.object({
  state: z.string().max(500).optional(),
  code: z.string().max(2_000).optional(),
  iss: z.string().max(500).optional(),
  session_state: z.string().max(500).optional(),
  error: z.string().max(200).optional(),
  error_description: z.string().max(1_000).optional(),
  error_uri: z.string().max(1_000).optional(),
});
