import type { Token, TokenStatus } from '@latchkey/contracts';
import { IconBan, IconCircleCheck, IconClockOff, IconPlayerPause } from '@tabler/icons-react';
import { t } from '../texts.js';
import { hint } from '../ui/Hints.js';
import { fromNow, Time } from '../ui/Time.js';

const ICONS: Record<TokenStatus | 'owner_disabled', typeof IconBan> = {
  active: IconCircleCheck,
  expired: IconClockOff,
  revoked: IconBan,
  disabled: IconPlayerPause,
  owner_disabled: IconPlayerPause,
};
const SOON_MS = 7 * 86_400_000;

/** A token that its owner's state alone keeps from being accepted is told apart. */
const shownStatus = ({ status, owner }: Token): TokenStatus | 'owner_disabled' =>
  status === 'active' && owner.disabled ? 'owner_disabled' : status;

/**
 * Why the token is accepted or not, as a sentence.
 * @param unsettledRestoreAt when a restore was noticed that is not settled
 */
export function whyStatus(token: Token, unsettledRestoreAt: string | null = null): string {
  if (token.status === 'active' && unsettledRestoreAt !== null && token.createdAt < unsettledRestoreAt)
    return t.tokens.why.restored;
  const status = shownStatus(token);
  switch (status) {
    case 'owner_disabled':
      return t.tokens.why.ownerDisabled[token.owner.type];
    case 'revoked':
      return t.tokens.why.revoked(
        token.revokedAt ? fromNow(token.revokedAt) : '',
        token.revokedBy?.name ?? '',
        t.tokens.reasons[token.revocationReason ?? 'unspecified'],
      );
    case 'expired':
      return t.tokens.why.expired(token.expiresAt ? fromNow(token.expiresAt) : '');
    default:
      return t.tokens.why[status];
  }
}

export function StatusBadge({ token }: { token: Token }) {
  const status = shownStatus(token);
  const Icon = ICONS[status];
  const why = whyStatus(token);
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: its reason shows on focus too
    <span className={`status status-${status}`} tabIndex={0} {...hint(why)}>
      <Icon size={14} stroke={2} aria-hidden />
      {t.tokens.status[status]}
      <span className="visually-hidden">. {why}</span>
    </span>
  );
}

/** When it ends; told apart where that is soon, and left out where it has been revoked before. */
export function Expiry({ token, short = false }: { token: Token; short?: boolean }) {
  if (token.status === 'revoked') return <span className="muted">–</span>;
  if (!token.expiresAt) return <span className="muted">{t.tokens.never}</span>;
  const left = Date.parse(token.expiresAt) - Date.now();
  return (
    <span className={token.status === 'active' && left < SOON_MS ? 'soon' : undefined}>
      <Time iso={token.expiresAt} short={short} />
    </span>
  );
}
