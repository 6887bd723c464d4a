import type { Token } from '@latchkey/contracts';
import { ActionIcon, Anchor, Checkbox, Menu, Text, Tooltip } from '@mantine/core';
import { IconDots } from '@tabler/icons-react';
import { useVirtualizer } from '@tanstack/react-virtual';
import { useEffect, useRef } from 'react';
import { go } from '../app/router.js';
import { t } from '../texts.js';
import { Time } from '../ui/Time.js';
import { Sparkline } from './Sparkline.js';
import { StatusBadge } from './status.js';

export type TokenAction = 'revoke' | 'rotate' | 'edit';

interface Props {
  tokens: readonly Token[];
  selected: ReadonlySet<string>;
  onSelect(id: string, selected: boolean): void;
  onAction(action: TokenAction, token: Token): void;
  /** Called when the end of what is loaded comes into view. */
  onEnd(): void;
}

function Scopes({ scopes }: { scopes: readonly string[] }) {
  if (scopes.length === 0) return <span className="muted">{t.tokens.noScopes}</span>;
  return (
    <Tooltip label={scopes.join(', ')} disabled={scopes.length < 2}>
      <span className="ellipsis mono" style={{ display: 'block' }}>
        {scopes.length === 1 ? scopes[0] : `${scopes[0]} +${scopes.length - 1}`}
      </span>
    </Tooltip>
  );
}

function Row({
  token,
  selected,
  onSelect,
  onAction,
}: { token: Token } & Omit<Props, 'tokens' | 'selected' | 'onEnd'> & { selected: boolean }) {
  const ended = token.status === 'revoked' || token.status === 'expired';
  return (
    <>
      <div style={{ display: 'flex', gap: 12, alignItems: 'center' }} role="cell">
        <Checkbox
          size="xs"
          checked={selected}
          disabled={token.status === 'revoked'}
          onChange={(e) => onSelect(token.id, e.currentTarget.checked)}
          aria-label={t.tokens.select(token.name)}
        />
        <div style={{ minWidth: 0 }}>
          <Anchor
            href={`#/api-tokens/${token.id}`}
            fw={600}
            className="ellipsis"
            style={{ display: 'block' }}
            c={ended ? 'dimmed' : undefined}
          >
            {token.name}
          </Anchor>
          <Text size="xs" c="dimmed" className="mono ellipsis">
            {token.start}…
          </Text>
        </div>
      </div>
      <div className="ellipsis" role="cell">
        <span className="cell-label">{t.tokens.columns.owner}</span>
        {token.owner.name}
      </div>
      <div role="cell" className="wide-only">
        <Scopes scopes={token.scopes} />
      </div>
      <div role="cell" className="wide-only">
        <Sparkline tokenId={token.id} />
      </div>
      <div role="cell">
        <span className="cell-label">{t.tokens.columns.lastUsed}</span>
        {token.lastUsedAt ? <Time iso={token.lastUsedAt} /> : <span className="muted">{t.tokens.neverUsed}</span>}
        {token.lastUsedIp && (
          <Text size="xs" c="dimmed" className="mono ellipsis">
            {token.lastUsedIp}
          </Text>
        )}
      </div>
      <div role="cell">
        <span className="cell-label">{t.tokens.columns.expires}</span>
        {token.expiresAt ? <Time iso={token.expiresAt} /> : <span className="muted">{t.tokens.never}</span>}
      </div>
      <div role="cell">
        <StatusBadge token={token} />
      </div>
      <div role="cell">
        <Menu position="bottom-end" withinPortal>
          <Menu.Target>
            <ActionIcon variant="subtle" color="gray" aria-label={t.tokens.menu(token.name)}>
              <IconDots size={18} />
            </ActionIcon>
          </Menu.Target>
          <Menu.Dropdown>
            <Menu.Item onClick={() => go(`/api-tokens/${token.id}`)}>{t.tokens.view}</Menu.Item>
            <Menu.Item disabled={ended} onClick={() => onAction('edit', token)}>
              {t.detail.edit}
            </Menu.Item>
            <Menu.Item disabled={ended || token.rotatedTo !== null} onClick={() => onAction('rotate', token)}>
              {t.detail.rotate}
            </Menu.Item>
            <Menu.Divider />
            <Menu.Item color="red" disabled={token.status === 'revoked'} onClick={() => onAction('revoke', token)}>
              {t.detail.revoke}
            </Menu.Item>
          </Menu.Dropdown>
        </Menu>
      </div>
    </>
  );
}

const HEADS = [
  t.tokens.columns.name,
  t.tokens.columns.owner,
  t.tokens.columns.scopes,
  t.tokens.columns.usage,
  t.tokens.columns.lastUsed,
  t.tokens.columns.expires,
  t.tokens.columns.status,
];

/** The tokens as rows on a wide screen and cards on a narrow one; only what is in view stands in the page. */
export function TokenTable({ tokens, selected, onSelect, onAction, onEnd }: Props) {
  const scroll = useRef<HTMLDivElement>(null);
  const rows = useVirtualizer({
    count: tokens.length,
    getScrollElement: () => scroll.current,
    estimateSize: () => 61,
    getItemKey: (index) => tokens[index]?.id ?? index,
    overscan: 8,
  });
  const items = rows.getVirtualItems();
  const last = items.at(-1)?.index ?? 0;
  useEffect(() => {
    if (tokens.length > 0 && last >= tokens.length - 10) onEnd();
  }, [last, tokens.length, onEnd]);
  return (
    <div className="tokens" role="table" aria-label={t.tokens.title} aria-rowcount={tokens.length + 1}>
      <div className="tokens-head" role="row">
        {HEADS.map((head) => (
          <div key={head} role="columnheader">
            {head}
          </div>
        ))}
        <div role="columnheader">
          <span className="visually-hidden">{t.tokens.columns.actions}</span>
        </div>
      </div>
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by keyboard */}
      <div ref={scroll} className="tokens-scroll" tabIndex={0} role="rowgroup">
        <div style={{ height: rows.getTotalSize(), position: 'relative' }}>
          {items.map((item) => {
            const token = tokens[item.index];
            if (!token) return null;
            return (
              <div
                key={item.key}
                ref={rows.measureElement}
                data-index={item.index}
                className="tokens-row"
                role="row"
                aria-rowindex={item.index + 2}
                style={{ position: 'absolute', insetInline: 0, transform: `translateY(${item.start}px)` }}
              >
                <Row token={token} selected={selected.has(token.id)} onSelect={onSelect} onAction={onAction} />
              </div>
            );
          })}
        </div>
      </div>
    </div>
  );
}
