import { Alert, Button, Group, Paper, Radio, Select, Stack, Text, TextInput } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { useState } from 'react';
import { api, changed, fieldError } from '../api.js';
import { go, useRoute } from '../app/router.js';
import { t } from '../texts.js';
import { Buttons } from '../ui/Confirm.js';
import { useSubmit } from '../ui/form.js';
import { ErrorNotice } from '../ui/Notice.js';
import { Page } from '../ui/Page.js';
import { SecretOnce } from './SecretOnce.js';
import { bodyOf, NameFields, RightsFields, type TokenForm } from './TokenFields.js';

const DAY_MS = 86_400_000;
const DAYS = [7, 30, 60, 90];
const shortDate = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium' });

function expiryOf(choice: string, date: string): { expiresAt: string } | Record<never, never> {
  if (choice === 'never') return {};
  // A date means its last moment, in the reader's zone.
  if (choice === 'date') return { expiresAt: new Date(`${date}T23:59:59`).toISOString() };
  return { expiresAt: new Date(Date.now() + Number(choice) * DAY_MS).toISOString() };
}

/** The form; `?name=&description=&scopes=a:read,b:write&projectId=` fill it in advance. */
export function CreatePage() {
  const { query } = useRoute();
  const projects = useQuery({ queryKey: ['listProjects'], queryFn: () => api.listProjects({ query: { limit: 100 } }) });
  const [form, setForm] = useState<TokenForm>({
    name: (query.get('name') ?? '').slice(0, 100),
    description: (query.get('description') ?? '').slice(0, 1_000),
    scopes: (query.get('scopes') ?? '').split(/[\s,]+/).filter(Boolean),
    addresses: '',
    limit: '',
    windowSeconds: 60,
  });
  const [kind, setKind] = useState<'pat' | 'prj'>(query.get('projectId') ? 'prj' : 'pat');
  const [projectId, setProjectId] = useState<string | null>(query.get('projectId'));
  const [expiry, setExpiry] = useState('30');
  const [date, setDate] = useState('');
  // The secret lives here alone, and is gone when this page is left.
  const [issued, setIssued] = useState<{ id: string; secret: string } | null>(null);
  const { onSubmit, working, error } = useSubmit(async () => {
    const { rateLimit, description, ...body } = bodyOf(form);
    const answer = await api.issueToken({
      body: {
        ...body,
        kind,
        ...(rateLimit ? { rateLimit } : {}),
        ...(description ? { description } : {}),
        ...(kind === 'prj' && projectId ? { projectId } : {}),
        ...expiryOf(expiry, date),
      },
    });
    changed('listTokens', 'listAudit');
    if ('secret' in answer) setIssued({ id: answer.id, secret: answer.secret });
    else go(`/api-tokens/${answer.id}`);
  });

  if (issued) {
    const done = () => {
      setIssued(null);
      go(`/api-tokens/${issued.id}`);
    };
    return (
      <Page title={t.once.title} narrow>
        <Paper>
          <SecretOnce secret={issued.secret} onDone={done} />
        </Paper>
      </Page>
    );
  }
  const fields = { form, onChange: (change: Partial<TokenForm>) => setForm((f) => ({ ...f, ...change })), error };
  return (
    <Page title={t.create.title} lead={t.create.lead} narrow>
      <form onSubmit={onSubmit}>
        <Stack>
          <Paper>
            <Stack>
              <NameFields {...fields} />
              <Radio.Group label={t.create.kind} value={kind} onChange={(v) => setKind(v as 'pat' | 'prj')}>
                <Stack gap="sm" mt="xs">
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
                  data={(projects.data?.items ?? [])
                    .filter((p) => !p.closed)
                    .map((p) => ({ value: p.id, label: p.name }))}
                  error={fieldError(error, 'projectId')}
                />
              )}
            </Stack>
          </Paper>
          <Paper>
            <RightsFields {...fields} />
          </Paper>
          <Paper>
            <Stack>
              <Radio.Group
                label={t.create.expiry}
                value={expiry}
                onChange={setExpiry}
                error={fieldError(error, 'expiresAt')}
              >
                <Group gap="lg" mt="xs">
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
            </Stack>
          </Paper>
          {error !== null && <ErrorNotice error={error} />}
          <Buttons>
            <Button variant="default" onClick={() => go('/api-tokens')}>
              {t.actions.cancel}
            </Button>
            <Button type="submit" loading={working}>
              {t.create.submit}
            </Button>
          </Buttons>
        </Stack>
      </form>
    </Page>
  );
}
