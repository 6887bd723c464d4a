import type { Effect, ProjectRole } from '@latchkey/contracts';
import { Alert, Button, Group, Modal, Paper, Select, Stack, Table, Text, TextInput, Title } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { type FormEvent, useState } from 'react';
import { api, changed } from '../api.js';
import { useUser } from '../app/session.js';
import { t } from '../texts.js';
import { EffectView } from '../tokens/Receipt.js';
import { CopyIcon } from '../ui/Copy.js';
import { ErrorNotice } from '../ui/Notice.js';
import { Page, ScrollX } from '../ui/Page.js';

const ROLES = Object.entries(t.projects.roles).map(([value, label]) => ({ value, label }));

export function ProjectPage({ id }: { id: string }) {
  const user = useUser();
  const [person, setPerson] = useState('');
  const [role, setRole] = useState<ProjectRole>('viewer');
  const [closing, setClosing] = useState(false);
  const [effect, setEffect] = useState<Effect | null>(null);
  const [error, setError] = useState<unknown>(null);
  const list = useQuery({ queryKey: ['listProjects'], queryFn: () => api.listProjects({ query: { limit: 100 } }) });
  const project = list.data?.items.find((p) => p.id === id);
  if (list.error) return <ErrorNotice error={list.error} retry={() => void list.refetch()} />;
  if (!project) return list.data ? <Alert color="gray">{t.status.missing}</Alert> : null;
  const mayManage = !project.closed && (project.role === 'owner' || user.role === 'admin');

  const change = async (work: () => Promise<Effect>) => {
    setError(null);
    setEffect(null);
    try {
      setEffect(await work());
    } catch (failure) {
      setError(failure);
    } finally {
      changed('listProjects', 'listTokens', 'listAudit');
    }
  };
  const add = async (event: FormEvent) => {
    event.preventDefault();
    await change(async () => {
      let userId = person.trim();
      if (userId.includes('@')) {
        const found = await api.listUsers({ query: { q: userId, limit: 1 } });
        userId = found.items[0]?.id ?? userId;
      }
      const answer = await api.putMember({ params: { id, userId }, body: { role } });
      setPerson('');
      return answer;
    });
  };
  return (
    <Page
      title={project.name}
      lead={project.description}
      actions={
        <>
          <Button component="a" href={`#/projects/${id}/api-tokens`} variant="default">
            {t.projects.tokens}
          </Button>
          {mayManage && (
            <Button color="red" variant="light" onClick={() => setClosing(true)}>
              {t.projects.close}
            </Button>
          )}
        </>
      }
    >
      {project.closed && <Alert color="gray">{t.projects.closed}</Alert>}
      <Text size="sm" c="dimmed">
        {t.projects.id}: <span className="mono">{id}</span> <CopyIcon value={id} />
      </Text>
      {error !== null && <ErrorNotice error={error} />}
      {effect && <EffectView effect={effect} />}
      <Paper withBorder radius="md" p="md">
        <Title order={2} size="h5" mb="sm">
          {t.projects.members}
        </Title>
        <ScrollX label={t.projects.members}>
          <Table>
            <Table.Tbody>
              {project.members.map((member) => (
                <Table.Tr key={member.userId}>
                  <Table.Td>
                    {member.name}
                    <Text size="xs" c="dimmed">
                      {member.email}
                    </Text>
                  </Table.Td>
                  <Table.Td>
                    <Select
                      aria-label={`${t.people.role}: ${member.name}`}
                      miw={130}
                      data={ROLES}
                      value={member.role}
                      disabled={!mayManage}
                      allowDeselect={false}
                      onChange={(value) =>
                        value &&
                        void change(() =>
                          api.putMember({
                            params: { id, userId: member.userId },
                            body: { role: value as ProjectRole },
                          }),
                        )
                      }
                    />
                  </Table.Td>
                  <Table.Td ta="right">
                    {mayManage && (
                      <Button
                        variant="subtle"
                        color="red"
                        size="xs"
                        onClick={() => void change(() => api.removeMember({ params: { id, userId: member.userId } }))}
                      >
                        {t.actions.remove}
                      </Button>
                    )}
                  </Table.Td>
                </Table.Tr>
              ))}
            </Table.Tbody>
          </Table>
        </ScrollX>
        {mayManage && (
          <form onSubmit={(e) => void add(e)}>
            <Group align="flex-end" mt="md">
              <TextInput
                flex="1 1 220px"
                label={t.projects.person}
                required
                value={person}
                onChange={(e) => setPerson(e.currentTarget.value)}
              />
              <Select
                label={t.people.role}
                data={ROLES}
                value={role}
                allowDeselect={false}
                onChange={(v) => setRole((v ?? 'viewer') as ProjectRole)}
              />
              <Button type="submit">{t.projects.addMember}</Button>
            </Group>
          </form>
        )}
      </Paper>
      {closing && (
        <Modal opened onClose={() => setClosing(false)} title={t.projects.close}>
          <Stack>
            <Text>{t.projects.closeLead}</Text>
            <Group justify="flex-end">
              <Button variant="default" onClick={() => setClosing(false)}>
                {t.actions.cancel}
              </Button>
              <Button
                color="red"
                onClick={() => {
                  setClosing(false);
                  void change(() => api.closeProject({ params: { id } }));
                }}
              >
                {t.projects.close}
              </Button>
            </Group>
          </Stack>
        </Modal>
      )}
    </Page>
  );
}
