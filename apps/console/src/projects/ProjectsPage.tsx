import { Anchor, Badge, Button, Group, Paper, Stack, Text, Textarea, TextInput } from '@mantine/core';
import { IconFolders, IconPlus } from '@tabler/icons-react';
import { useQuery } from '@tanstack/react-query';
import { useState } from 'react';
import { api, changed, fieldError } from '../api.js';
import { go } from '../app/router.js';
import { t } from '../texts.js';
import { Buttons } from '../ui/Confirm.js';
import { Dialog } from '../ui/Dialog.js';
import { useSubmit } from '../ui/form.js';
import { ErrorNotice } from '../ui/Notice.js';
import { Empty, Loading, Page } from '../ui/Page.js';

function Create({ onClose }: { onClose(): void }) {
  const [name, setName] = useState('');
  const [description, setDescription] = useState('');
  const { onSubmit, working, error } = useSubmit(async () => {
    const project = await api.createProject({ body: { name, ...(description ? { description } : {}) } });
    changed('listProjects', 'listAudit');
    go(`/projects/${project.id}`);
  });
  return (
    <Dialog onClose={onClose} title={t.projects.create}>
      <form onSubmit={onSubmit}>
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
          <Buttons>
            <Button variant="default" onClick={onClose}>
              {t.actions.cancel}
            </Button>
            <Button type="submit" loading={working}>
              {t.projects.create}
            </Button>
          </Buttons>
        </Stack>
      </form>
    </Dialog>
  );
}

export function ProjectsPage() {
  const [creating, setCreating] = useState(false);
  const list = useQuery({ queryKey: ['listProjects'], queryFn: () => api.listProjects({ query: { limit: 100 } }) });
  const createButton = (
    <Button leftSection={<IconPlus size={16} />} onClick={() => setCreating(true)}>
      {t.projects.create}
    </Button>
  );
  return (
    <Page title={t.projects.title} lead={t.projects.lead} actions={list.data?.items.length !== 0 && createButton}>
      {list.error && <ErrorNotice error={list.error} retry={() => void list.refetch()} />}
      {list.isPending && <Loading />}
      {list.data?.items.length === 0 && (
        <Empty
          icon={<IconFolders size={36} stroke={1.4} />}
          title={t.projects.emptyTitle}
          text={t.projects.empty}
          action={createButton}
        />
      )}
      {list.data && list.data.items.length > 0 && (
        <Paper py="xs">
          <ul className="lines">
            {list.data.items.map((project) => (
              <li key={project.id}>
                <div className="grow">
                  <Group gap="xs">
                    <Anchor
                      href={`#/projects/${project.id}`}
                      fw={600}
                      c={project.closed ? 'dimmed' : 'var(--mantine-color-text)'}
                      className="anywhere"
                    >
                      {project.name}
                    </Anchor>
                    {project.closed && (
                      <Badge color="gray" variant="light" tt="none">
                        {t.projects.closed}
                      </Badge>
                    )}
                  </Group>
                  <Text size="sm" c="dimmed" className="anywhere">
                    {project.description || t.projects.membersOf(project.members.length)}
                  </Text>
                </div>
                <Group gap="md">
                  {project.role && (
                    <Text size="sm" c="dimmed">
                      {t.projects.roles[project.role]}
                    </Text>
                  )}
                  <Button component="a" size="xs" variant="default" href={`#/projects/${project.id}/api-tokens`}>
                    {t.projects.tokens}
                  </Button>
                </Group>
              </li>
            ))}
          </ul>
        </Paper>
      )}
      {creating && <Create onClose={() => setCreating(false)} />}
    </Page>
  );
}
