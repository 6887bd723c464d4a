import { Alert, Anchor, Button, Group, Paper, Select, Table, Text, TextInput } from '@mantine/core';
import { IconAlertTriangle, IconLink } from '@tabler/icons-react';
import { keepPreviousData, useInfiniteQuery, useQuery } from '@tanstack/react-query';
import { useState } from 'react';
import { api } from '../api.js';
import { t } from '../texts.js';
import { ErrorNotice } from '../ui/Notice.js';
import { Loading, Page, ScrollX } from '../ui/Page.js';
import { Time } from '../ui/Time.js';
import { AUDIT_ACTION_NAMES } from './actions.js';

function Chain() {
  const chain = useQuery({ queryKey: ['verifyAudit'], queryFn: () => api.verifyAudit(), staleTime: 30_000 });
  if (chain.error) return <ErrorNotice error={chain.error} />;
  if (!chain.data) return null;
  const { ok, events, checkpoints, firstBroken } = chain.data;
  const Icon = ok ? IconLink : IconAlertTriangle;
  return (
    <Alert color={ok ? 'green' : 'red'} title={t.audit.chain} role="status" icon={<Icon size={20} aria-hidden />}>
      {ok ? t.audit.intact(events, checkpoints) : t.audit.broken(firstBroken?.reason ?? '')}
    </Alert>
  );
}

/** The first or last moment of a day, in the reader's zone. */
const moment = (day: string, clock: string) => new Date(`${day}T${clock}`).toISOString();

export function AuditPage() {
  const [action, setAction] = useState<(typeof AUDIT_ACTION_NAMES)[number] | null>(null);
  const [actor, setActor] = useState<string | null>(null);
  const [projectId, setProjectId] = useState<string | null>(null);
  const [from, setFrom] = useState('');
  const [to, setTo] = useState('');
  const people = useQuery({ queryKey: ['listUsers', ''], queryFn: () => api.listUsers({ query: { limit: 100 } }) });
  const projects = useQuery({ queryKey: ['listProjects'], queryFn: () => api.listProjects({ query: { limit: 100 } }) });
  const filters = {
    ...(action ? { action } : {}),
    ...(actor ? { actor } : {}),
    ...(projectId ? { projectId } : {}),
    ...(from ? { from: moment(from, '00:00:00') } : {}),
    ...(to ? { to: moment(to, '23:59:59.999') } : {}),
  };
  const list = useInfiniteQuery({
    queryKey: ['listAudit', filters],
    initialPageParam: undefined as string | undefined,
    queryFn: ({ pageParam }) =>
      api.listAudit({ query: { ...filters, limit: 50, ...(pageParam ? { cursor: pageParam } : {}) } }),
    getNextPageParam: (page) => page.nextCursor ?? undefined,
    placeholderData: keepPreviousData,
  });
  const events = list.data?.pages.flatMap((page) => page.items) ?? [];
  const exportHref = (format: string) => `/v1/audit/export?${new URLSearchParams({ format, ...filters })}`;
  const named = (items: { id: string; name: string }[] = []) =>
    items.map(({ id, name }) => ({ value: id, label: name }));
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
      <Group gap="xs" align="flex-end">
        <Select
          flex="1 1 170px"
          label={t.audit.what}
          placeholder={t.audit.any}
          clearable
          searchable
          data={AUDIT_ACTION_NAMES.map((value) => ({ value, label: t.audit.actions[value] }))}
          value={action}
          onChange={(value) => setAction(value as typeof action)}
        />
        <Select
          flex="1 1 150px"
          label={t.audit.who}
          placeholder={t.audit.anybody}
          clearable
          searchable
          data={named(people.data?.items)}
          value={actor}
          onChange={setActor}
        />
        <Select
          flex="1 1 150px"
          label={t.create.project}
          placeholder={t.audit.anyProject}
          clearable
          searchable
          data={named(projects.data?.items)}
          value={projectId}
          onChange={setProjectId}
        />
        <TextInput
          flex="1 1 140px"
          type="date"
          label={t.audit.fromDay}
          value={from}
          max={to || undefined}
          onChange={(e) => setFrom(e.currentTarget.value)}
        />
        <TextInput
          flex="1 1 140px"
          type="date"
          label={t.audit.toDay}
          value={to}
          min={from || undefined}
          onChange={(e) => setTo(e.currentTarget.value)}
        />
      </Group>
      {list.error && <ErrorNotice error={list.error} retry={() => void list.refetch()} />}
      {list.isPending && <Loading />}
      {list.data && events.length === 0 && <Text c="dimmed">{t.audit.empty}</Text>}
      {events.length > 0 && (
        <Paper p={0}>
          <ScrollX label={t.audit.title}>
            <Table>
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
                    <Table.Td className="nowrap">
                      <Time iso={event.at} />
                    </Table.Td>
                    <Table.Td>{event.actor.type === 'system' ? t.audit.system : event.actor.name}</Table.Td>
                    <Table.Td>
                      {t.audit.actions[event.action]}
                      <Text size="xs" c="dimmed" className="mono">
                        {event.action}
                      </Text>
                    </Table.Td>
                    <Table.Td className="anywhere" miw={160}>
                      {event.tokenId && event.subject ? (
                        <Anchor href={`#/api-tokens/${event.tokenId}`} size="sm">
                          {event.subject.name}
                        </Anchor>
                      ) : (
                        event.subject?.name
                      )}
                    </Table.Td>
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
