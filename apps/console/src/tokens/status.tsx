import type { Token } from '@latchkey/contracts';
import { Badge, Tooltip } from '@mantine/core';
import { t } from '../texts.js';
import { fromNow } from '../ui/Time.js';

const COLORS = { active: 'green', expired: 'gray', revoked: 'red', disabled: 'orange' } as const;

/** Why the token is accepted or not, as a sentence. */
export function whyStatus(token: Token): string {
  switch (token.status) {
    case 'revoked':
      return t.tokens.why.revoked(
        token.revokedAt ? fromNow(token.revokedAt) : '',
        token.revokedBy?.name ?? '',
        t.tokens.reasons[token.revocationReason ?? 'unspecified'],
      );
    case 'expired':
      return t.tokens.why.expired(token.expiresAt ? fromNow(token.expiresAt) : '');
    default:
      return t.tokens.why[token.status];
  }
}

export function StatusBadge({ token }: { token: Token }) {
  return (
    <Tooltip label={whyStatus(token)}>
      <Badge color={COLORS[token.status]} variant="light" tt="none" tabIndex={0}>
        {t.tokens.status[token.status]}
        <span className="visually-hidden">. {whyStatus(token)}</span>
      </Badge>
    </Tooltip>
  );
}
