import type { Effect, ProjectRole } from '@latchkey/contracts';
import { Alert, Anchor, Button, Group, Select, Text, TextInput } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { useState } from 'react';
import { api, changed } from '../api.js';
import { useUser } from '../app/session.js';
import { t } from '../texts.js';
import { EffectView } from '../tokens/Receipt.js';
import { Confirm } from '../ui/Confirm.js';
import { CopyIcon } from '../ui/Copy.js';
import { useSubmit } from '../ui/form.js';
import { ErrorNotice } from '../ui/Notice.js';
import { Loading, Page, Section } from '../ui/Page.js';

const ROLES = Object.entries(t.projects.roles).map(([value, label]) => ({ value, label }));

export function ProjectPage({ id }: { id: string }) {
  const user = useUser();
  const [person, setPerson] = useState('');
  const [role, setRole] = useState<ProjectRole>('viewer');
  const [closing, setClosing] = useState(false);
  const [effect, setEffect] = useState<Effect | null>(null);
  const [error, setError] = useState<unknown>(null);
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
  const { onSubmit, working } = useSubmit(() =>
    change(async () => {
      let userId = person.trim();
      if (userId.includes('@')) {
        const found = await api.listUsers({ query: { q: userId, limit: 1 } });
        userId = found.items[0]?.id ?? userId;
      }
      const answer = await api.putMember({ params: { id, userId }, body: { role } });
      setPerson('');
      return answer;
    }),
  );
  const list = useQuery({ queryKey: ['listProjects'], queryFn: () => api.listProjects({ query: { limit: 100 } }) });
  const project = list.data?.items.find((p) => p.id === id);
  if (list.error) return <ErrorNotice error={list.error} retry={() => void list.refetch()} />;
  if (!project) return list.data ? <Page title={t.status.missing}>{null}</Page> : <Loading />;
  const mayManage = !project.closed && (project.role === 'owner' || user.role === 'admin');

  return (
    <Page
      title={project.name}
      lead={project.description}
      up={<Anchor href="#/projects">← {t.projects.title}</Anchor>}
      actions={
        <Button component="a" href={`#/projects/${id}/api-tokens`}>
          {t.projects.tokens}
        </Button>
      }
    >
      {project.closed && <Alert color="gray">{t.projects.closedLead}</Alert>}
      {error !== null && <ErrorNotice error={error} />}
      {effect && <EffectView effect={effect} />}
      <Section
        title={t.projects.members}
        lead={t.projects.membersLead}
        aside={<Text c="dimmed">{project.members.length}</Text>}
      >
        <ul className="lines">
          {project.members.map((member) => (
            <li key={member.userId}>
              <div className="grow">
                <Text size="sm" fw={600}>
                  {member.name}
                </Text>
                <Text size="xs" c="dimmed">
                  {member.email}
                </Text>
              </div>
              <Group gap="xs">
                <Select
                  aria-label={`${t.people.role}: ${member.name}`}
                  size="xs"
                  w={130}
                  data={ROLES}
                  value={member.role}
                  disabled={!mayManage}
                  allowDeselect={false}
                  onChange={(value) =>
                    value &&
                    void change(() =>
                      api.putMember({ params: { id, userId: member.userId }, body: { role: value as ProjectRole } }),
                    )
                  }
                />
                {mayManage && (
                  <Button
                    variant="default"
                    size="xs"
                    aria-label={`${t.actions.remove}: ${member.name}`}
                    onClick={() => void change(() => api.removeMember({ params: { id, userId: member.userId } }))}
                  >
                    {t.actions.remove}
                  </Button>
                )}
              </Group>
            </li>
          ))}
        </ul>
        {mayManage && (
          <form onSubmit={onSubmit}>
            <Group align="flex-end" mt="md" gap="sm">
              <TextInput
                flex="1 1 220px"
                label={t.projects.person}
                required
                maxLength={254}
                value={person}
                onChange={(e) => setPerson(e.currentTarget.value)}
              />
              <Select
                label={t.people.role}
                w={130}
                data={ROLES}
                value={role}
                allowDeselect={false}
                onChange={(v) => setRole((v ?? 'viewer') as ProjectRole)}
              />
              <Button type="submit" loading={working} variant="default">
                {t.projects.addMember}
              </Button>
            </Group>
          </form>
        )}
      </Section>
      <Section title={t.projects.id} lead={t.projects.idLead}>
        <Group gap={4}>
          <span className="mono anywhere">{id}</span> <CopyIcon value={id} />
        </Group>
      </Section>
      {mayManage && (
        <Section title={t.projects.close} lead={t.projects.closeLead}>
          <Button color="red" variant="light" onClick={() => setClosing(true)}>
            {t.projects.close}
          </Button>
        </Section>
      )}
      {closing && (
        <Confirm
          question={{
            title: t.projects.closeTitle(project.name),
            lead: t.projects.closeLead,
            confirm: t.projects.close,
            work: async () => {
              const answer = await api.closeProject({ params: { id } });
              changed('listProjects', 'listTokens', 'getToken', 'listAudit');
              return <EffectView effect={answer} refused />;
            },
          }}
          onClose={() => setClosing(false)}
        />
      )}
    </Page>
  );
}
