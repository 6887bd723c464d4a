import type { Token, TokenSort } from '@latchkey/contracts';
import { Menu } from '@mantine/core';
import { useMediaQuery } from '@mantine/hooks';
import { IconArrowDown, IconArrowsSort, IconArrowUp, IconDots, IconFolder, IconUser } from '@tabler/icons-react';
import { useWindowVirtualizer } from '@tanstack/react-virtual';
import { memo, useEffect, useRef, useState } from 'react';
import { go } from '../app/router.js';
import { t } from '../texts.js';
import { hint } from '../ui/Hints.js';
import { Time } from '../ui/Time.js';
import { Sparkline } from './Sparkline.js';
import { Expiry, StatusBadge } from './status.js';

export type TokenAction = 'revoke' | 'rotate' | 'edit';

interface Shared {
  /** The same function at each rendering, as the next one: rows are drawn again only when their token changes. */
  onSelect(id: string, selected: boolean): void;
  onAction(action: TokenAction, token: Token): void;
}

interface Props extends Shared {
  tokens: readonly Token[];
  selected: ReadonlySet<string>;
  sort: TokenSort;
  onSort(sort: TokenSort): void;
  /** Called when the end of what is loaded comes into view. */
  onEnd(): void;
}

const OVERSCAN = 6;
const ROW_PX = 58;
const CARD_PX = 112;
const hasEnded = (token: Token) => token.status === 'revoked' || token.status === 'expired';

/** Opened on demand, since hundreds of menus in waiting would make a long list heavy. */
function RowMenu({ token, onAction }: { token: Token; onAction: Shared['onAction'] }) {
  const [opened, setOpened] = useState(false);
  const button = (
    <button
      type="button"
      className="plain dots"
      aria-label={t.tokens.menu(token.name)}
      aria-haspopup="menu"
      onClick={() => setOpened(true)}
    >
      <IconDots size={18} aria-hidden />
    </button>
  );
  if (!opened) return button;
  const ended = hasEnded(token);
  return (
    <Menu position="bottom-end" opened onChange={setOpened} width={170}>
      <Menu.Target>{button}</Menu.Target>
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
  );
}

function Scopes({ scopes }: { scopes: readonly string[] }) {
  if (scopes.length === 0) return <span className="muted">{t.tokens.noScopes}</span>;
  return (
    <span className="ellipsis mono block" {...(scopes.length > 1 && hint(scopes.join(', ')))}>
      {scopes.length === 1 ? scopes[0] : `${scopes[0]} +${scopes.length - 1}`}
    </span>
  );
}

/** The cells of one token. Plain elements: a row must be cheap to make while the list is scrolled. */
const Cells = memo(function Cells({
  token,
  selected,
  onSelect,
  onAction,
}: Shared & { token: Token; selected: boolean }) {
  const Owner = token.owner.type === 'user' ? IconUser : IconFolder;
  return (
    <>
      <div className="token-name" role="cell">
        <input
          type="checkbox"
          className="check"
          checked={selected}
          disabled={token.status === 'revoked'}
          onChange={(e) => onSelect(token.id, e.currentTarget.checked)}
          aria-label={t.tokens.select(token.name)}
        />
        <div>
          <a href={`#/api-tokens/${token.id}`} className="ellipsis">
            {token.name}
          </a>
          <div className="token-start mono ellipsis">{token.start}…</div>
        </div>
      </div>
      <div className="token-owner" role="cell">
        <Owner size={15} stroke={1.7} aria-hidden />
        <span className="ellipsis">{token.owner.name}</span>
      </div>
      <div className="scopes-cell wide-cell" role="cell">
        <Scopes scopes={token.scopes} />
      </div>
      <div className="created-cell wide-cell ellipsis" role="cell">
        <Time iso={token.createdAt} short />
      </div>
      <div className="used-cell" role="cell">
        <span className="cell-label">{t.tokens.columns.lastUsed}</span>
        {token.lastUsedAt ? <Time iso={token.lastUsedAt} short /> : <span className="muted">{t.tokens.neverUsed}</span>}
        {token.lastUsedIp && <div className="token-start mono ellipsis">{token.lastUsedIp}</div>}
      </div>
      <div className="expires-cell" role="cell">
        <span className="cell-label">{t.tokens.columns.expires}</span>
        <Expiry token={token} short />
      </div>
      <div className="usage-cell wide-cell" role="cell">
        <Sparkline key={token.id} tokenId={token.id} />
      </div>
      <div className="status-cell" role="cell">
        <StatusBadge token={token} />
      </div>
      <div className="menu-cell" role="cell">
        <RowMenu key={token.id} token={token} onAction={onAction} />
      </div>
    </>
  );
});

function SortHead({
  label,
  by,
  sort,
  onSort,
}: { label: string; by: 'name' | 'created' | 'expires' } & Pick<Props, 'sort' | 'onSort'>) {
  const ascending = sort === by;
  const descending = sort === `-${by}`;
  const Icon = ascending ? IconArrowUp : descending ? IconArrowDown : IconArrowsSort;
  // Times begin with the newest, names and ends with the first.
  const first: TokenSort = by === 'created' ? '-created' : by;
  const second: TokenSort = by === 'created' ? 'created' : `-${by}`;
  return (
    <div
      role="columnheader"
      className={`${by}-cell`}
      aria-sort={ascending ? 'ascending' : descending ? 'descending' : 'none'}
    >
      <button type="button" onClick={() => onSort(sort === first ? second : first)}>
        {label}
        <Icon size={14} aria-hidden opacity={ascending || descending ? 1 : 0.45} />
      </button>
    </div>
  );
}

/** The tokens as rows on a wide screen and cards on a narrow one; only what is in view stands in the page. */
export function TokenTable({ tokens, selected, sort, onSort, onSelect, onAction, onEnd }: Props) {
  const body = useRef<HTMLDivElement>(null);
  const [top, setTop] = useState(0);
  const narrow = useMediaQuery('(max-width: 940px)', undefined, { getInitialValueInEffect: false }) ?? false;
  const columns = t.tokens.columns;
  // biome-ignore lint/correctness/useExhaustiveDependencies: what stands above may change its height with the list
  useEffect(() => setTop((body.current?.getBoundingClientRect().top ?? 0) + window.scrollY), [tokens, narrow]);
  const rows = useWindowVirtualizer({
    count: tokens.length,
    estimateSize: () => (narrow ? CARD_PX : ROW_PX),
    getItemKey: (index) => tokens[index]?.id ?? index,
    overscan: OVERSCAN,
    scrollMargin: top,
    // Drawn with the next frame instead of within each scroll event.
    useFlushSync: false,
  });
  // biome-ignore lint/correctness/useExhaustiveDependencies: rows and cards differ in height
  useEffect(() => rows.measure(), [rows, narrow]);
  const items = rows.getVirtualItems();
  // A row that leaves at one end is the one that enters at the other: scrolling changes words, and makes no elements.
  // Cards are measured, each as it comes.
  const places = Math.ceil(window.innerHeight / ROW_PX) + 2 * OVERSCAN + 2;
  const last = items.at(-1)?.index ?? 0;
  useEffect(() => {
    if (tokens.length > 0 && last >= tokens.length - 30) onEnd();
  }, [last, tokens.length, onEnd]);
  const common = { sort, onSort };
  return (
    <div className="tokens" role="table" aria-label={t.tokens.title} aria-rowcount={tokens.length + 1}>
      <div className="tokens-head" role="row">
        <SortHead label={columns.name} by="name" {...common} />
        <div role="columnheader">{columns.owner}</div>
        <div role="columnheader" className="scopes-cell">
          {columns.scopes}
        </div>
        <SortHead label={columns.created} by="created" {...common} />
        <div role="columnheader">{columns.lastUsed}</div>
        <SortHead label={columns.expires} by="expires" {...common} />
        <div role="columnheader" className="usage-cell">
          {columns.usage}
        </div>
        <div role="columnheader">{columns.status}</div>
        <div role="columnheader">
          <span className="visually-hidden">{columns.actions}</span>
        </div>
      </div>
      <div ref={body} className="tokens-body" role="rowgroup" style={{ height: rows.getTotalSize() }}>
        {items.map((item) => {
          const token = tokens[item.index];
          if (!token) return null;
          const isSelected = selected.has(token.id);
          return (
            <div
              key={narrow ? item.key : item.index % places}
              ref={narrow ? rows.measureElement : undefined}
              data-index={item.index}
              className={hasEnded(token) ? 'tokens-row ended' : 'tokens-row'}
              role="row"
              aria-rowindex={item.index + 2}
              aria-selected={isSelected}
              style={{ transform: `translateY(${item.start - top}px)` }}
            >
              <Cells token={token} selected={isSelected} onSelect={onSelect} onAction={onAction} />
            </div>
          );
        })}
      </div>
    </div>
  );
}
