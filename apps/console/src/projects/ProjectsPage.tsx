import { Anchor, Badge, Button, Group, Modal, Paper, Stack, Text, Textarea, TextInput } from '@mantine/core';
import { IconPlus } from '@tabler/icons-react';
import { useQuery } from '@tanstack/react-query';
import { type FormEvent, useState } from 'react';
import { api, changed, fieldError } from '../api.js';
import { go } from '../app/router.js';
import { t } from '../texts.js';
import { ErrorNotice } from '../ui/Notice.js';
import { Page } from '../ui/Page.js';

function Create({ onClose }: { onClose(): void }) {
  const [name, setName] = useState('');
  const [description, setDescription] = useState('');
  const [error, setError] = useState<unknown>(null);
  const submit = async (event: FormEvent) => {
    event.preventDefault();
    try {
      const project = await api.createProject({ body: { name, ...(description ? { description } : {}) } });
      changed('listProjects', 'listAudit');
      go(`/projects/${project.id}`);
    } catch (failure) {
      setError(failure);
    }
  };
  return (
    <Modal opened onClose={onClose} title={t.projects.create}>
      <form onSubmit={(e) => void submit(e)}>
        <Stack>
          <TextInput
            label={t.projects.name}
            required
            maxLength={100}
            data-autofocus
            value={name}
            onChange={(e) => setName(e.currentTarget.value)}
            error={fieldError(error, 'name')}
          />
          <Textarea
            label={t.projects.description}
            maxLength={1_000}
            autosize
            minRows={2}
            value={description}
            onChange={(e) => setDescription(e.currentTarget.value)}
          />
          {error !== null && <ErrorNotice error={error} />}
          <Group justify="flex-end">
            <Button variant="default" onClick={onClose}>
              {t.actions.cancel}
            </Button>
            <Button type="submit">{t.projects.create}</Button>
          </Group>
        </Stack>
      </form>
    </Modal>
  );
}

export function ProjectsPage() {
  const [creating, setCreating] = useState(false);
  const list = useQuery({ queryKey: ['listProjects'], queryFn: () => api.listProjects({ query: { limit: 100 } }) });
  return (
    <Page
      title={t.projects.title}
      lead={t.projects.lead}
      actions={
        <Button leftSection={<IconPlus size={16} />} onClick={() => setCreating(true)}>
          {t.projects.create}
        </Button>
      }
    >
      {list.error && <ErrorNotice error={list.error} retry={() => void list.refetch()} />}
      {list.data?.items.length === 0 && <Text c="dimmed">{t.projects.empty}</Text>}
      {list.data?.items.map((project) => (
        <Paper key={project.id} withBorder radius="md" p="md">
          <Group justify="space-between">
            <div>
              <Anchor href={`#/projects/${project.id}`} fw={600}>
                {project.name}
              </Anchor>
              <Text size="sm" c="dimmed">
                {project.description}
              </Text>
            </div>
            <Group gap="sm">
              {project.closed && (
                <Badge color="gray" variant="light" tt="none">
                  {t.projects.closed}
                </Badge>
              )}
              {project.role && (
                <Badge variant="light" tt="none">
                  {t.projects.roles[project.role]}
                </Badge>
              )}
              <Anchor href={`#/projects/${project.id}/api-tokens`}>{t.projects.tokens}</Anchor>
            </Group>
          </Group>
        </Paper>
      ))}
      {creating && <Create onClose={() => setCreating(false)} />}
    </Page>
  );
}
