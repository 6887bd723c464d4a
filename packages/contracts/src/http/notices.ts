import { z } from 'zod';

/** Everything that people are told of their tokens: the closed list, with what each is about. */
export const NOTICE_KINDS = {
  expiring: 'A token comes within 30, 7 and 1 days of its end.',
  expired: 'A token has expired.',
  revoked: 'Somebody else, or the policy, revoked a token.',
  exposed: 'A token was reported as exposed and is revoked.',
  reported: 'The secret of a token that had ended was found in the open; administrators hear it too.',
  new_address: 'A token was used from an address that it was not used from before.',
  used_after_rotation: 'The old secret of a rotated token was presented.',
  idle: 'A token will be revoked because nobody uses it.',
} as const;
export type NoticeKind = keyof typeof NOTICE_KINDS;
const noticeKindSchema = z.enum(Object.keys(NOTICE_KINDS) as [NoticeKind, ...NoticeKind[]]);

const ways = {
  email: z.boolean().meta({ description: 'by e-mail' }),
  webhook: z.boolean().meta({ description: "by the organisation's webhook" }),
};
export const noticeChoicesSchema = z
  .object({ items: z.array(z.object({ kind: noticeKindSchema, description: z.string(), ...ways })) })
  .meta({ id: 'NoticeChoices' });
export type NoticeChoices = z.infer<typeof noticeChoicesSchema>;

/** Kinds that are left out stay as they are. */
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
