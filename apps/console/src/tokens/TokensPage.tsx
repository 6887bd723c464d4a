import type { Token, TokenSort, TokenStatus } from '@latchkey/contracts';
import { Anchor, Button, Group, Select, Text, TextInput } from '@mantine/core';
import { useDebouncedValue } from '@mantine/hooks';
import { IconKey, IconPlus, IconSearch } from '@tabler/icons-react';
import { keepPreviousData, useInfiniteQuery, useQuery } from '@tanstack/react-query';
import { lazy, Suspense, useCallback, useDeferredValue, useEffect, useMemo, useState } from 'react';
import { api, PAGES_READ_AGAIN_MAX, queries } from '../api.js';
import { go, keepInAddress, useRoute } from '../app/router.js';
import { t } from '../texts.js';
import { ErrorNotice } from '../ui/Notice.js';
import { Empty, Loading, Page } from '../ui/Page.js';
import { type TokenAction, TokenTable } from './TokenTable.js';

const RevokeDialog = lazy(() => import('./RevokeDialog.js').then((m) => ({ default: m.RevokeDialog })));
const RotateDialog = lazy(() => import('./RotateDialog.js').then((m) => ({ default: m.RotateDialog })));
const EditDialog = lazy(() => import('./EditDialog.js').then((m) => ({ default: m.EditDialog })));

type Dialog = { action: TokenAction; tokens: Token[] };
const STATUSES: TokenStatus[] = ['active', 'disabled', 'expired', 'revoked'];
const NEWEST: TokenSort = '-created';
const NONE: Token[] = [];
const isStatus = (value: string | null): value is TokenStatus => STATUSES.some((status) => status === value);
const isSort = (value: string | null): value is TokenSort => value !== null && value in t.tokens.sorts;

type Filters = Omit<NonNullable<NonNullable<Parameters<typeof api.listTokens>[0]>['query']>, 'limit' | 'cursor'>;

const tokensQuery = (filters: Filters) => ({
  queryKey: ['listTokens', filters],
  initialPageParam: undefined as string | undefined,
  queryFn: ({ pageParam }: { pageParam: string | undefined }) =>
    api.listTokens({ query: { ...filters, limit: 100, ...(pageParam ? { cursor: pageParam } : {}) } }),
  getNextPageParam: (page: { nextCursor: string | null }) => page.nextCursor ?? undefined,
});

/** Asks for what the page shows first, before it is drawn. */
export function prefetchTokens(): void {
  void queries.prefetchInfiniteQuery(tokensQuery({ sort: NEWEST }));
}

/** One's own tokens and all that one may see, or a project's. Filters and order stand in the address. */
export function TokensPage({ projectId }: { projectId?: string }) {
  const { query } = useRoute();
  const [search, setSearch] = useState((query.get('q') ?? '').slice(0, 100));
  const [q] = useDebouncedValue(search.trim(), 250);
  const [status, setStatus] = useState(() => {
    const asked = query.get('status');
    return isStatus(asked) ? asked : null;
  });
  const [owner, setOwner] = useState(query.get('owner'));
  const [sort, setSort] = useState(() => {
    const asked = query.get('sort');
    return isSort(asked) ? asked : NEWEST;
  });
  const [selected, setSelected] = useState<ReadonlySet<string>>(new Set());
  const [dialog, setDialog] = useState<Dialog | null>(null);
  const projects = useQuery({ queryKey: ['listProjects'], queryFn: () => api.listProjects({ query: { limit: 100 } }) });
  useEffect(() => keepInAddress({ q, status, owner, sort: sort === NEWEST ? null : sort }), [q, status, owner, sort]);

  const filters = {
    ...(projectId ? { projectId } : {}),
    ...(owner === 'me' ? { owner: 'me' as const } : {}),
    ...(owner && owner !== 'me' ? { projectId: owner } : {}),
    ...(status ? { status } : {}),
    ...(q ? { q } : {}),
    sort,
  };
  const list = useInfiniteQuery({
    ...tokensQuery(filters),
    placeholderData: keepPreviousData,
    refetchOnWindowFocus: ({ state }) => (state.data?.pages.length ?? 0) <= PAGES_READ_AGAIN_MAX,
    refetchInterval: ({ state }) => ((state.data?.pages.length ?? 0) > PAGES_READ_AGAIN_MAX ? false : 10_000),
  });
  const tokens = useMemo(() => list.data?.pages.flatMap((page) => page.items) ?? [], [list.data]);
  // The page's head is painted first, the table with the next breath.
  const shown = useDeferredValue(tokens, NONE);
  const { hasNextPage, isFetchingNextPage, fetchNextPage } = list;
  const onEnd = useCallback(() => {
    if (hasNextPage && !isFetchingNextPage) void fetchNextPage();
  }, [hasNextPage, isFetchingNextPage, fetchNextPage]);
  const onSelect = useCallback(
    (id: string, on: boolean) =>
      setSelected((before) => {
        const after = new Set(before);
        if (on) after.add(id);
        else after.delete(id);
        return after;
      }),
    [],
  );
  const onAction = useCallback((action: TokenAction, token: Token) => setDialog({ action, tokens: [token] }), []);
  const close = () => {
    setDialog(null);
    setSelected(new Set());
  };

  const project = projects.data?.items.find((p) => p.id === projectId);
  const filtered = Boolean(q || status || owner);
  const createHref = projectId ? `#/api-tokens/new?projectId=${projectId}` : '#/api-tokens/new';
  const chosen = tokens.filter((token) => selected.has(token.id));
  const createButton = (
    <Button component="a" href={createHref} leftSection={<IconPlus size={16} />}>
      {t.tokens.create}
    </Button>
  );
  return (
    <Page
      title={project ? t.tokens.projectTitle(project.name) : t.tokens.title}
      lead={t.tokens.subtitle}
      up={projectId && <Anchor href={`#/projects/${projectId}`}>← {project?.name ?? t.nav.projects}</Anchor>}
      actions={createButton}
    >
      <Group gap="xs" align="flex-end">
        <TextInput
          flex="1 1 220px"
          aria-label={t.tokens.search}
          placeholder={t.tokens.search}
          leftSection={<IconSearch size={16} />}
          value={search}
          maxLength={100}
          onChange={(e) => setSearch(e.currentTarget.value)}
        />
        {!projectId && (
          <Select
            flex="1 1 150px"
            maw={260}
            aria-label={t.tokens.columns.owner}
            placeholder={t.tokens.allOwners}
            clearable
            value={owner}
            onChange={setOwner}
            data={[
              { value: 'me', label: t.tokens.mine },
              ...(projects.data?.items ?? []).map((p) => ({ value: p.id, label: p.name })),
            ]}
          />
        )}
        <Select
          flex="1 1 130px"
          maw={180}
          aria-label={t.tokens.columns.status}
          placeholder={t.tokens.allStatuses}
          clearable
          value={status}
          onChange={(value) => setStatus(value as TokenStatus | null)}
          data={STATUSES.map((value) => ({ value, label: t.tokens.status[value] }))}
        />
        <Select
          className="narrow-only"
          flex="1 1 150px"
          aria-label={t.tokens.sort}
          allowDeselect={false}
          value={sort}
          onChange={(value) => setSort(isSort(value) ? value : NEWEST)}
          data={Object.entries(t.tokens.sorts).map(([value, label]) => ({ value, label }))}
        />
      </Group>
      {list.error && <ErrorNotice error={list.error} retry={() => void list.refetch()} />}
      {list.isPending && !list.error && <Loading />}
      {list.data &&
        tokens.length === 0 &&
        (filtered ? (
          <Text c="dimmed">{t.tokens.noMatch}</Text>
        ) : (
          <Empty
            icon={<IconKey size={36} stroke={1.4} />}
            title={t.tokens.emptyTitle}
            text={t.tokens.empty}
            points={t.tokens.emptyPoints}
            action={createButton}
          />
        ))}
      {tokens.length > 0 && shown.length > 0 && (
        <>
          <TokenTable
            tokens={shown}
            selected={selected}
            sort={sort}
            onSort={setSort}
            onSelect={onSelect}
            onAction={onAction}
            onEnd={onEnd}
          />
          <Text size="sm" c="dimmed" aria-live="polite">
            {t.tokens.count(tokens.length, hasNextPage)}
          </Text>
        </>
      )}
      {chosen.length > 0 && (
        <div className="bulk">
          <Text size="sm" fw={600} aria-live="polite">
            {t.tokens.selected(chosen.length)}
          </Text>
          <Group gap="xs">
            <Button variant="subtle" color="gray" size="xs" onClick={() => setSelected(new Set())}>
              {t.tokens.clearSelection}
            </Button>
            <Button color="red" size="xs" onClick={() => setDialog({ action: 'revoke', tokens: chosen })}>
              {t.tokens.revokeSelected}
            </Button>
          </Group>
        </div>
      )}
      <Suspense>
        {dialog?.action === 'revoke' && <RevokeDialog tokens={dialog.tokens} onClose={close} />}
        {dialog?.action === 'rotate' && dialog.tokens[0] && (
          <RotateDialog token={dialog.tokens[0]} onClose={close} onOpen={(id) => go(`/api-tokens/${id}`)} />
        )}
        {dialog?.action === 'edit' && dialog.tokens[0] && <EditDialog token={dialog.tokens[0]} onClose={close} />}
      </Suspense>
    </Page>
  );
}
