import { Alert, Button, Group, Paper, Select, Table, Text } from '@mantine/core';
import { useInfiniteQuery, useQuery } from '@tanstack/react-query';
import { useState } from 'react';
import { api } from '../api.js';
import { t } from '../texts.js';
import { ErrorNotice } from '../ui/Notice.js';
import { Page, ScrollX } from '../ui/Page.js';
import { Time } from '../ui/Time.js';
import { AUDIT_ACTION_NAMES } from './actions.js';

function Chain() {
  const chain = useQuery({ queryKey: ['verifyAudit'], queryFn: () => api.verifyAudit(), staleTime: 30_000 });
  if (!chain.data) return null;
  const { ok, events, checkpoints, firstBroken } = chain.data;
  return (
    <Alert color={ok ? 'green' : 'red'} title={t.audit.chain} role="status">
      {ok ? t.audit.intact(events, checkpoints) : t.audit.broken(firstBroken?.reason ?? '')}
    </Alert>
  );
}

export function AuditPage() {
  const [action, setAction] = useState<(typeof AUDIT_ACTION_NAMES)[number] | null>(null);
  const filters = action ? { action } : {};
  const list = useInfiniteQuery({
    queryKey: ['listAudit', filters],
    initialPageParam: undefined as string | undefined,
    queryFn: ({ pageParam }) =>
      api.listAudit({ query: { ...filters, limit: 50, ...(pageParam ? { cursor: pageParam } : {}) } }),
    getNextPageParam: (page) => page.nextCursor ?? undefined,
  });
  const events = list.data?.pages.flatMap((page) => page.items) ?? [];
  const exportHref = (format: string) => `/v1/audit/export?format=${format}${action ? `&action=${action}` : ''}`;
  return (
    <Page
      title={t.audit.title}
      lead={t.audit.lead}
      actions={
        <>
          <Button component="a" variant="default" href={exportHref('ndjson')} download>
            {t.audit.exportJson}
          </Button>
          <Button component="a" variant="default" href={exportHref('csv')} download>
            {t.audit.exportCsv}
          </Button>
        </>
      }
    >
      <Chain />
      <Select
        aria-label={t.audit.action}
        placeholder={t.audit.any}
        clearable
        searchable
        maw={260}
        data={[...AUDIT_ACTION_NAMES]}
        value={action}
        onChange={(value) => setAction(value as typeof action)}
      />
      {list.error && <ErrorNotice error={list.error} retry={() => void list.refetch()} />}
      {list.data && events.length === 0 && <Text c="dimmed">{t.audit.empty}</Text>}
      {events.length > 0 && (
        <Paper withBorder radius="md">
          <ScrollX label={t.audit.title}>
            <Table verticalSpacing="xs">
              <Table.Thead>
                <Table.Tr>
                  <Table.Th>{t.audit.when}</Table.Th>
                  <Table.Th>{t.audit.who}</Table.Th>
                  <Table.Th>{t.audit.what}</Table.Th>
                  <Table.Th>{t.audit.subject}</Table.Th>
                  <Table.Th>{t.audit.where}</Table.Th>
                </Table.Tr>
              </Table.Thead>
              <Table.Tbody>
                {events.map((event) => (
                  <Table.Tr key={event.id}>
                    <Table.Td>
                      <Time iso={event.at} />
                    </Table.Td>
                    <Table.Td>{event.actor.name || t.audit.system}</Table.Td>
                    <Table.Td className="mono">{event.action}</Table.Td>
                    <Table.Td>{event.subject?.name}</Table.Td>
                    <Table.Td className="mono">{event.ip}</Table.Td>
                  </Table.Tr>
                ))}
              </Table.Tbody>
            </Table>
          </ScrollX>
        </Paper>
      )}
      {list.hasNextPage && (
        <Group justify="center">
          <Button variant="default" loading={list.isFetchingNextPage} onClick={() => void list.fetchNextPage()}>
            {t.actions.more}
          </Button>
        </Group>
      )}
    </Page>
  );
}
