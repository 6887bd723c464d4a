import type { Token, TokenStatus } from '@latchkey/contracts';
import { Button, Center, Group, Loader, Paper, Select, Stack, Text, TextInput, Title } from '@mantine/core';
import { useDebouncedValue } from '@mantine/hooks';
import { IconKey, IconPlus, IconSearch } from '@tabler/icons-react';
import { keepPreviousData, useInfiniteQuery, useQuery } from '@tanstack/react-query';
import { lazy, Suspense, useCallback, useMemo, useState } from 'react';
import { api } from '../api.js';
import { go, useRoute } from '../app/router.js';
import { t } from '../texts.js';
import { ErrorNotice } from '../ui/Notice.js';
import { Page } from '../ui/Page.js';
import { type TokenAction, TokenTable } from './TokenTable.js';

const RevokeDialog = lazy(() => import('./RevokeDialog.js').then((m) => ({ default: m.RevokeDialog })));
const RotateDialog = lazy(() => import('./RotateDialog.js').then((m) => ({ default: m.RotateDialog })));
const EditDialog = lazy(() => import('./EditDialog.js').then((m) => ({ default: m.EditDialog })));

type Dialog = { action: TokenAction; tokens: Token[] };
const STATUSES: TokenStatus[] = ['active', 'disabled', 'expired', 'revoked'];

function Empty({ createHref }: { createHref: string }) {
  return (
    <Paper withBorder radius="md" p="xl">
      <Stack align="center" gap="sm" maw={520} mx="auto" ta="center">
        <IconKey size={40} stroke={1.4} />
        <Title order={2} size="h4">
          {t.tokens.emptyTitle}
        </Title>
        <Text c="dimmed">{t.tokens.empty}</Text>
        <Button component="a" href={createHref} leftSection={<IconPlus size={16} />}>
          {t.tokens.create}
        </Button>
      </Stack>
    </Paper>
  );
}

/** One's own tokens and all that one may see, or a project's. */
export function TokensPage({ projectId }: { projectId?: string }) {
  const { query } = useRoute();
  const [search, setSearch] = useState('');
  const [q] = useDebouncedValue(search.trim(), 250);
  const [status, setStatus] = useState<TokenStatus | null>(null);
  const [owner, setOwner] = useState<string | null>(query.get('owner') === 'me' ? 'me' : null);
  const [selected, setSelected] = useState<ReadonlySet<string>>(new Set());
  const [dialog, setDialog] = useState<Dialog | null>(null);
  const projects = useQuery({ queryKey: ['listProjects'], queryFn: () => api.listProjects({ query: { limit: 100 } }) });

  const filters = {
    ...(projectId ? { projectId } : {}),
    ...(owner === 'me' ? { owner: 'me' as const } : {}),
    ...(owner && owner !== 'me' ? { projectId: owner } : {}),
    ...(status ? { status } : {}),
    ...(q ? { q } : {}),
  };
  const list = useInfiniteQuery({
    queryKey: ['listTokens', filters],
    initialPageParam: undefined as string | undefined,
    queryFn: ({ pageParam }) =>
      api.listTokens({ query: { ...filters, limit: 50, ...(pageParam ? { cursor: pageParam } : {}) } }),
    getNextPageParam: (page) => page.nextCursor ?? undefined,
    placeholderData: keepPreviousData,
    refetchInterval: (running) => ((running.state.data?.pages.length ?? 0) > 3 ? false : 10_000),
  });
  const tokens = useMemo(() => list.data?.pages.flatMap((page) => page.items) ?? [], [list.data]);
  const { hasNextPage, isFetchingNextPage, fetchNextPage } = list;
  const onEnd = useCallback(() => {
    if (hasNextPage && !isFetchingNextPage) void fetchNextPage();
  }, [hasNextPage, isFetchingNextPage, fetchNextPage]);
  const onSelect = (id: string, on: boolean) =>
    setSelected((before) => {
      const after = new Set(before);
      if (on) after.add(id);
      else after.delete(id);
      return after;
    });
  const close = () => {
    setDialog(null);
    setSelected(new Set());
  };

  const project = projects.data?.items.find((p) => p.id === projectId);
  const filtered = Boolean(q || status || owner);
  const createHref = projectId ? `#/api-tokens/new?projectId=${projectId}` : '#/api-tokens/new';
  const chosen = tokens.filter((token) => selected.has(token.id));
  return (
    <Page
      title={project ? t.tokens.projectTitle(project.name) : t.tokens.title}
      lead={t.tokens.subtitle}
      actions={
        <Button component="a" href={createHref} leftSection={<IconPlus size={16} />}>
          {t.tokens.create}
        </Button>
      }
    >
      <Group gap="sm" align="flex-end">
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
          aria-label={t.tokens.columns.status}
          placeholder={t.tokens.allStatuses}
          clearable
          value={status}
          onChange={(value) => setStatus(value as TokenStatus | null)}
          data={STATUSES.map((value) => ({ value, label: t.tokens.status[value] }))}
        />
      </Group>
      {chosen.length > 0 && (
        <Group justify="space-between">
          <Text size="sm">{t.tokens.selected(chosen.length)}</Text>
          <Button color="red" variant="light" size="xs" onClick={() => setDialog({ action: 'revoke', tokens: chosen })}>
            {t.tokens.revokeSelected}
          </Button>
        </Group>
      )}
      {list.error && <ErrorNotice error={list.error} retry={() => void list.refetch()} />}
      {list.isPending && !list.error && (
        <Center mih={200}>
          <Loader aria-label={t.status.loading} />
        </Center>
      )}
      {list.data &&
        tokens.length === 0 &&
        (filtered ? <Text c="dimmed">{t.tokens.noMatch}</Text> : <Empty createHref={createHref} />)}
      {tokens.length > 0 && (
        <>
          <TokenTable
            tokens={tokens}
            selected={selected}
            onSelect={onSelect}
            onAction={(action, token) => setDialog({ action, tokens: [token] })}
            onEnd={onEnd}
          />
          <Text size="sm" c="dimmed" aria-live="polite">
            {t.tokens.count(tokens.length, hasNextPage)}
          </Text>
        </>
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
