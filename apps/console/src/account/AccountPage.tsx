import { Alert, Badge, Button, Checkbox, Group, Stack, Text } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { useState } from 'react';
import { api, changed, queries } from '../api.js';
import { CurrentPasswordField, NewPasswordField } from '../app/SignedOutPage.js';
import { useUser } from '../app/session.js';
import { t } from '../texts.js';
import { Confirm } from '../ui/Confirm.js';
import { useSubmit } from '../ui/form.js';
import { ErrorNotice } from '../ui/Notice.js';
import { Page, Section } from '../ui/Page.js';
import { Time } from '../ui/Time.js';
import { programOf } from './program.js';
import { SecondFactor } from './SecondFactor.js';

function Password() {
  const [current, setCurrent] = useState('');
  const [next, setNext] = useState('');
  const [done, setDone] = useState(false);
  const { onSubmit, working, error } = useSubmit(async () => {
    setDone(false);
    try {
      await api.changePassword({ body: { currentPassword: current, newPassword: next } });
      setDone(true);
      changed('listSessions');
    } finally {
      setCurrent('');
      setNext('');
    }
  });
  return (
    <Section title={t.account.password} lead={t.account.passwordLead}>
      <form onSubmit={onSubmit}>
        <Stack maw={460}>
          <CurrentPasswordField value={current} onChange={setCurrent} />
          <NewPasswordField value={next} onChange={setNext} error={error} />
          {error !== null && <ErrorNotice error={error} />}
          {done && (
            <Alert color="green" role="status">
              {t.account.changed}
            </Alert>
          )}
          <Group>
            <Button type="submit" loading={working}>
              {t.account.change}
            </Button>
          </Group>
        </Stack>
      </form>
    </Section>
  );
}

function Sessions() {
  const list = useQuery({ queryKey: ['listSessions'], queryFn: () => api.listSessions() });
  const [asking, setAsking] = useState(false);
  const [error, setError] = useState<unknown>(null);
  const end = async (id: string) => {
    setError(null);
    try {
      await api.endSession({ params: { id } });
    } catch (failure) {
      setError(failure);
    } finally {
      changed('listSessions');
    }
  };
  return (
    <Section title={t.account.sessions} lead={t.account.sessionsLead}>
      {list.error && <ErrorNotice error={list.error} />}
      {error !== null && <ErrorNotice error={error} />}
      <ul className="lines">
        {list.data?.items.map((session) => (
          <li key={session.id}>
            <div className="grow">
              <Group gap="xs">
                <Text size="sm" fw={600}>
                  {programOf(session.userAgent)}
                </Text>
                {session.current && (
                  <Badge variant="light" tt="none">
                    {t.account.here}
                  </Badge>
                )}
              </Group>
              <Text size="xs" c="dimmed">
                <span className="mono">{session.ip}</span> · {t.account.seen} <Time iso={session.seenAt} />
              </Text>
            </div>
            {!session.current && (
              <Button size="xs" variant="default" onClick={() => void end(session.id)}>
                {t.account.end}
              </Button>
            )}
          </li>
        ))}
      </ul>
      <Button mt="sm" variant="light" color="red" onClick={() => setAsking(true)}>
        {t.account.endAll}
      </Button>
      {asking && (
        <Confirm
          question={{
            title: t.account.endAll,
            lead: t.account.endAllLead,
            confirm: t.account.endAll,
            work: async () => {
              await api.endSessions();
              queries.clear();
              window.location.reload();
              return null;
            },
          }}
          onClose={() => setAsking(false)}
        />
      )}
    </Section>
  );
}

function Notices() {
  const choices = useQuery({ queryKey: ['getNoticeChoices'], queryFn: () => api.getNoticeChoices() });
  type Choice = NonNullable<typeof choices.data>['items'][number];
  const [error, setError] = useState<unknown>(null);
  const choose = async ({ kind, email, webhook }: Choice) => {
    setError(null);
    // Shown at once: nothing rests on it, and what is true is read again right after.
    queries.setQueryData<typeof choices.data>(['getNoticeChoices'], (known) =>
      known ? { ...known, items: known.items.map((c) => (c.kind === kind ? { ...c, email, webhook } : c)) } : known,
    );
    try {
      await api.putNoticeChoices({ body: { items: [{ kind, email, webhook }] } });
    } catch (failure) {
      setError(failure);
    } finally {
      changed('getNoticeChoices');
    }
  };
  return (
    <Section title={t.account.notices} lead={t.account.noticesLead}>
      {choices.error && <ErrorNotice error={choices.error} />}
      {error !== null && <ErrorNotice error={error} />}
      <ul className="lines">
        {choices.data?.items.map((choice) => (
          <li key={choice.kind}>
            <Text size="sm" className="grow">
              {choice.description}
            </Text>
            <Group gap="lg">
              {(['email', 'webhook'] as const).map((way) => (
                <Checkbox
                  key={way}
                  label={t.account[way]}
                  checked={choice[way]}
                  onChange={(e) => void choose({ ...choice, [way]: e.currentTarget.checked })}
                  aria-label={`${t.account[way]}: ${choice.description}`}
                />
              ))}
            </Group>
          </li>
        ))}
      </ul>
    </Section>
  );
}

export function AccountPage() {
  const user = useUser();
  return (
    <Page title={t.account.title} lead={`${user.name} · ${user.email}`} narrow>
      <Password />
      <SecondFactor />
      <Sessions />
      <Notices />
    </Page>
  );
}
