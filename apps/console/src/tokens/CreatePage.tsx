import { Alert, Button, Group, Paper, Radio, Select, Stack, Text, Textarea, TextInput } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { type FormEvent, useState } from 'react';
import { api, changed, fieldError } from '../api.js';
import { go, useRoute } from '../app/router.js';
import { t } from '../texts.js';
import { ErrorNotice } from '../ui/Notice.js';
import { Page } from '../ui/Page.js';
import { type Rights, RightsFields, rightsBody } from './RightsFields.js';
import { SecretOnce } from './SecretOnce.js';

const DAY_MS = 86_400_000;
const DAYS = [7, 30, 60, 90];
const shortDate = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium' });

function expiryOf(choice: string, date: string): { expiresAt: string } | Record<never, never> {
  if (choice === 'never') return {};
  // A date means its last moment, in the reader's zone.
  if (choice === 'date') return { expiresAt: new Date(`${date}T23:59:59`).toISOString() };
  return { expiresAt: new Date(Date.now() + Number(choice) * DAY_MS).toISOString() };
}

/** The form; `?name=&scopes=a:read,b:write&projectId=` fill it in advance. */
export function CreatePage() {
  const { query } = useRoute();
  const projects = useQuery({ queryKey: ['listProjects'], queryFn: () => api.listProjects({ query: { limit: 100 } }) });
  const [name, setName] = useState((query.get('name') ?? '').slice(0, 100));
  const [description, setDescription] = useState('');
  const [kind, setKind] = useState<'pat' | 'prj'>(query.get('projectId') ? 'prj' : 'pat');
  const [projectId, setProjectId] = useState<string | null>(query.get('projectId'));
  const [rights, setRights] = useState<Rights>({
    scopes: (query.get('scopes') ?? '').split(/[\s,]+/).filter(Boolean),
    addresses: '',
    limit: '',
    windowSeconds: 60,
  });
  const [expiry, setExpiry] = useState('30');
  const [date, setDate] = useState('');
  const [working, setWorking] = useState(false);
  const [error, setError] = useState<unknown>(null);
  // The secret lives here alone, and is gone when this page is left.
  const [issued, setIssued] = useState<{ id: string; secret: string } | null>(null);

  const submit = async (event: FormEvent) => {
    event.preventDefault();
    setWorking(true);
    setError(null);
    try {
      const { scopes, allowedIps, rateLimit } = rightsBody(rights);
      const answer = await api.issueToken({
        body: {
          name,
          kind,
          scopes,
          allowedIps,
          ...(rateLimit ? { rateLimit } : {}),
          ...(description ? { description } : {}),
          ...(kind === 'prj' && projectId ? { projectId } : {}),
          ...expiryOf(expiry, date),
        },
      });
      changed('listTokens', 'listAudit');
      if ('secret' in answer) setIssued({ id: answer.id, secret: answer.secret });
      else go(`/api-tokens/${answer.id}`);
    } catch (failure) {
      setError(failure);
    } finally {
      setWorking(false);
    }
  };

  if (issued) {
    const done = () => {
      setIssued(null);
      go(`/api-tokens/${issued.id}`);
    };
    return (
      <Page title={t.once.title} narrow>
        <SecretOnce secret={issued.secret} onDone={done} />
      </Page>
    );
  }
  return (
    <Page title={t.create.title} narrow>
      <form onSubmit={(e) => void submit(e)}>
        <Stack>
          <TextInput
            label={t.create.name}
            description={t.create.nameHint}
            placeholder={t.create.namePlaceholder}
            required
            maxLength={100}
            value={name}
            onChange={(e) => setName(e.currentTarget.value)}
            error={fieldError(error, 'name')}
          />
          <Textarea
            label={t.create.description}
            maxLength={1_000}
            autosize
            minRows={1}
            value={description}
            onChange={(e) => setDescription(e.currentTarget.value)}
          />
          <Radio.Group label={t.create.kind} value={kind} onChange={(v) => setKind(v as 'pat' | 'prj')}>
            <Stack gap="xs" mt="xs">
              <Radio value="pat" label={t.create.personal} description={t.create.personalHint} />
              <Radio value="prj" label={t.create.projectKind} description={t.create.projectHint} />
            </Stack>
          </Radio.Group>
          {kind === 'prj' && (
            <Select
              label={t.create.project}
              required
              searchable
              value={projectId}
              onChange={setProjectId}
              data={(projects.data?.items ?? []).filter((p) => !p.closed).map((p) => ({ value: p.id, label: p.name }))}
              error={fieldError(error, 'projectId')}
            />
          )}
          <Paper withBorder p="md" radius="md">
            <RightsFields rights={rights} onChange={setRights} error={error} />
          </Paper>
          <Radio.Group
            label={t.create.expiry}
            value={expiry}
            onChange={setExpiry}
            error={fieldError(error, 'expiresAt')}
          >
            <Group gap="md" mt="xs">
              {DAYS.map((days) => (
                <Radio key={days} value={String(days)} label={t.create.days(days)} />
              ))}
              <Radio value="date" label={t.create.date} />
              <Radio value="never" label={t.create.never} />
            </Group>
          </Radio.Group>
          {expiry === 'date' && (
            <TextInput
              type="date"
              aria-label={t.create.date}
              required
              min={new Date(Date.now() + DAY_MS).toISOString().slice(0, 10)}
              value={date}
              onChange={(e) => setDate(e.currentTarget.value)}
              maw={220}
            />
          )}
          {expiry === 'never' && <Alert color="yellow">{t.create.neverWarning}</Alert>}
          {DAYS.includes(Number(expiry)) && (
            <Text size="sm" c="dimmed">
              {t.create.until(shortDate.format(Date.now() + Number(expiry) * DAY_MS))}
            </Text>
          )}
          {error !== null && <ErrorNotice error={error} />}
          <Group justify="flex-end">
            <Button variant="default" onClick={() => go('/api-tokens')}>
              {t.actions.cancel}
            </Button>
            <Button type="submit" loading={working}>
              {t.create.submit}
            </Button>
          </Group>
        </Stack>
      </form>
    </Page>
  );
}
