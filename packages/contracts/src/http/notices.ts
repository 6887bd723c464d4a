import { z } from 'zod';

/** Every notice to people about their tokens: the closed list, with descriptions. */
export const NOTICE_KINDS = {
  expiring: 'A token expires in 30, 7 or 1 days.',
  expired: 'A token has expired.',
  revoked: 'Another person, or the policy, revoked a token.',
  exposed: 'A token was reported as exposed and is revoked.',
  reported: 'The secret of a revoked or expired token was found in public; administrators are notified too.',
  new_address: 'A token was used from a new address.',
  used_after_rotation: 'The old secret of a rotated token was presented.',
  idle: 'A token will be revoked because it is not used.',
} as const;
export type NoticeKind = keyof typeof NOTICE_KINDS;
const noticeKindSchema = z.enum(Object.keys(NOTICE_KINDS) as [NoticeKind, ...NoticeKind[]]);

const ways = {
  email: z.boolean().meta({ description: 'by email' }),
  webhook: z.boolean().meta({ description: "by the organisation's webhook" }),
};
export const noticeChoicesSchema = z
  .object({ items: z.array(z.object({ kind: noticeKindSchema, description: z.string(), ...ways })) })
  .meta({ id: 'NoticeChoices' });
export type NoticeChoices = z.infer<typeof noticeChoicesSchema>;

/** Kinds that are left out do not change. */
export const putNoticeChoicesBody = z
  .strictObject({
    items: z
      .array(z.strictObject({ kind: noticeKindSchema, ...ways }))
      .min(1)
      .max(Object.keys(NOTICE_KINDS).length)
      .refine((items) => new Set(items.map((i) => i.kind)).size === items.length, 'must not name a kind twice'),
  })
  .meta({ id: 'PutNoticeChoices' });
export type PutNoticeChoicesBody = z.infer<typeof putNoticeChoicesBody>;
