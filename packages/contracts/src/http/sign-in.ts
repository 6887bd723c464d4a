import { z } from 'zod';
import { LIMITS } from '../limits.js';
import { emailSchema, idSchema, lineSchema, timeSchema } from './common.js';

export const passwordSchema = z
  .string()
  .min(LIMITS.passwordLengthMin, `at least ${LIMITS.passwordLengthMin} characters`)
  .max(LIMITS.passwordLengthMax);
/** A one-time code of an authenticator app (RFC 6238). */
export const oneTimeCodeSchema = z.string().regex(/^\d{6}$/, 'six digits');
/** A one-time code, or a recovery code: four times four letters and digits, with or without the dashes. */
export const secondFactorCodeSchema = z
  .string()
  .trim()
  .regex(/^(\d{6}|[A-Za-z2-7]{4}(-?[A-Za-z2-7]{4}){3})$/, 'six digits, or a recovery code');
/** A password as presented; rules for new passwords do not apply. */
const presentedPassword = z.string().min(1).max(LIMITS.passwordLengthMax);

export const signInBody = z
  .strictObject({
    email: lineSchema(LIMITS.emailLengthMax),
    password: presentedPassword,
    code: secondFactorCodeSchema.optional(),
  })
  .meta({ id: 'SignIn' });

/** The ways to sign in here. */
export const signInOptionsSchema = z
  .object({
    password: z.boolean(),
    forgotPassword: z.boolean().meta({
      description: 'whether a link to set a password is sent by email; otherwise administrators hand over a code',
    }),
    oidc: z
      .object({ name: z.string(), url: z.string() })
      .nullable()
      .meta({ description: 'an identity provider: open `url` in the browser' }),
  })
  .meta({ id: 'SignInOptions' });

export const ownSessionSchema = z
  .object({
    id: idSchema,
    current: z.boolean().meta({ description: 'the session of this request' }),
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
export const forgotPasswordBody = z.strictObject({ email: emailSchema });
/** Handed over by an administrator, by any channel that only the person can read. */
export const passwordResetSchema = z
  .object({ code: z.string().meta({ description: 'works once, until it expires' }), expiresAt: timeSchema })
  .meta({ id: 'PasswordReset' });
export const setPasswordBody = z.strictObject({
  email: emailSchema,
  code: z.string().min(1).max(100),
  newPassword: passwordSchema,
  secondFactor: secondFactorCodeSchema
    .optional()
    .meta({ description: 'required of people with a second factor: the code above never replaces it' }),
});

export const secondFactorSchema = z
  .object({ enabled: z.boolean(), recoveryCodesLeft: z.int().min(0) })
  .meta({ id: 'SecondFactor' });
export const recoveryCodesSchema = z
  .object({
    recoveryCodes: z
      .array(z.string())
      .meta({ description: 'each replaces a code of the authenticator app once; shown once' }),
  })
  .meta({ id: 'RecoveryCodes' });
export const startSecondFactorBody = z.strictObject({ password: presentedPassword });
export const startedSecondFactorSchema = z
  .object({
    secret: z.string().meta({ description: 'base32, for typing into an authenticator app; shown once' }),
    uri: z.string().meta({ description: 'the same as an otpauth: URI, for a QR code' }),
  })
  .meta({ id: 'StartedSecondFactor' });
export const confirmSecondFactorBody = z.strictObject({ code: oneTimeCodeSchema });
export const removeSecondFactorBody = z.strictObject({ password: presentedPassword, code: secondFactorCodeSchema });

/** The response of the identity provider (RFC 6749 section 4.1.2, RFC 9207). */
export const oidcCallbackQuery = z.object({
  state: z.string().max(500).optional(),
  code: z.string().max(2_000).optional(),
  iss: z.string().max(500).optional(),
  session_state: z.string().max(500).optional(),
  error: z.string().max(200).optional(),
  error_description: z.string().max(1_000).optional(),
  error_uri: z.string().max(1_000).optional(),
});
