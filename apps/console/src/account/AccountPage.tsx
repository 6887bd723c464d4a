import {
  Alert,
  Badge,
  Button,
  Checkbox,
  Code,
  Group,
  Paper,
  PasswordInput,
  Stack,
  Table,
  Text,
  TextInput,
  Title,
} from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { type FormEvent, type ReactNode, useState } from 'react';
import { api, changed, fieldError } from '../api.js';
import { t } from '../texts.js';
import { CopyIcon } from '../ui/Copy.js';
import { ErrorNotice } from '../ui/Notice.js';
import { Page, ScrollX } from '../ui/Page.js';
import { Time } from '../ui/Time.js';

function Section({ title, children }: { title: string; children: ReactNode }) {
  return (
    <Paper withBorder p="md" radius="md" component="section">
      <Title order={2} size="h5" mb="sm">
        {title}
      </Title>
      {children}
    </Paper>
  );
}

function Password() {
  const [current, setCurrent] = useState('');
  const [next, setNext] = useState('');
  const [done, setDone] = useState(false);
  const [error, setError] = useState<unknown>(null);
  const submit = async (event: FormEvent) => {
    event.preventDefault();
    setError(null);
    setDone(false);
    try {
      await api.changePassword({ body: { currentPassword: current, newPassword: next } });
      setDone(true);
      changed('listSessions');
    } catch (failure) {
      setError(failure);
    } finally {
      setCurrent('');
      setNext('');
    }
  };
  return (
    <Section title={t.account.password}>
      <form onSubmit={(e) => void submit(e)}>
        <Stack maw={420}>
          <PasswordInput
            label={t.account.current}
            autoComplete="current-password"
            required
            value={current}
            onChange={(e) => setCurrent(e.currentTarget.value)}
          />
          <PasswordInput
            label={t.account.next}
            autoComplete="new-password"
            required
            value={next}
            onChange={(e) => setNext(e.currentTarget.value)}
            error={fieldError(error, 'newPassword')}
          />
          {error !== null && <ErrorNotice error={error} />}
          {done && (
            <Alert color="green" role="status">
              {t.account.changed}
            </Alert>
          )}
          <Group>
            <Button type="submit">{t.account.change}</Button>
          </Group>
        </Stack>
      </form>
    </Section>
  );
}

function SecondFactor() {
  const state = useQuery({ queryKey: ['getSecondFactor'], queryFn: () => api.getSecondFactor() });
  const [password, setPassword] = useState('');
  const [code, setCode] = useState('');
  const [started, setStarted] = useState<{ secret: string; uri: string } | null>(null);
  const [error, setError] = useState<unknown>(null);
  const act = async (work: () => Promise<unknown>) => {
    setError(null);
    try {
      await work();
      setCode('');
      changed('getSecondFactor');
    } catch (failure) {
      setError(failure);
    }
  };
  const start = () => act(async () => setStarted(await api.startSecondFactor({ body: { password } })));
  const confirm = () =>
    act(async () => {
      await api.confirmSecondFactor({ body: { code } });
      setStarted(null);
      setPassword('');
    });
  const remove = () =>
    act(async () => {
      await api.removeSecondFactor({ body: { password, code } });
      setPassword('');
    });
  const on = state.data?.enabled ?? false;
  const submit = (event: FormEvent) => {
    event.preventDefault();
    void (on ? remove() : started ? confirm() : start());
  };
  return (
    <Section title={t.account.factor}>
      <form onSubmit={submit}>
        <Stack maw={420}>
          <Text>{on ? t.account.factorOn : t.account.factorOff}</Text>
          {started && (
            <>
              <Text size="sm">{t.account.factorScan}</Text>
              <Group gap="xs">
                <Code>{started.secret}</Code>
                <CopyIcon value={started.secret} label={`${t.actions.copy}: ${t.account.factorSecret}`} />
              </Group>
            </>
          )}
          {!started && (
            <PasswordInput
              label={t.account.current}
              autoComplete="current-password"
              required
              value={password}
              onChange={(e) => setPassword(e.currentTarget.value)}
            />
          )}
          {(started || on) && (
            <TextInput
              label={t.signIn.code}
              inputMode="numeric"
              autoComplete="one-time-code"
              required
              maxLength={6}
              value={code}
              onChange={(e) => setCode(e.currentTarget.value)}
            />
          )}
          {error !== null && <ErrorNotice error={error} />}
          <Group>
            <Button type="submit" color={on ? 'red' : undefined} variant={on ? 'light' : 'filled'}>
              {on ? t.account.factorRemove : started ? t.account.factorConfirm : t.account.factorStart}
            </Button>
          </Group>
        </Stack>
      </form>
    </Section>
  );
}

function Sessions() {
  const list = useQuery({ queryKey: ['listSessions'], queryFn: () => api.listSessions() });
  const [error, setError] = useState<unknown>(null);
  const end = async (work: () => Promise<unknown>) => {
    setError(null);
    try {
      await work();
      changed('listSessions', 'whoAmI');
    } catch (failure) {
      setError(failure);
    }
  };
  return (
    <Section title={t.account.sessions}>
      {list.error && <ErrorNotice error={list.error} />}
      {error !== null && <ErrorNotice error={error} />}
      <ScrollX label={t.account.sessions}>
        <Table>
          <Table.Tbody>
            {list.data?.items.map((session) => (
              <Table.Tr key={session.id}>
                <Table.Td>
                  <span className="mono">{session.ip}</span>{' '}
                  {session.current && (
                    <Badge variant="light" tt="none">
                      {t.account.here}
                    </Badge>
                  )}
                  <Text size="xs" c="dimmed">
                    {session.userAgent}
                  </Text>
                </Table.Td>
                <Table.Td>
                  <Time iso={session.seenAt} />
                </Table.Td>
                <Table.Td ta="right">
                  <Button
                    size="xs"
                    variant="subtle"
                    color="red"
                    onClick={() => void end(() => api.endSession({ params: { id: session.id } }))}
                  >
                    {t.account.end}
                  </Button>
                </Table.Td>
              </Table.Tr>
            ))}
          </Table.Tbody>
        </Table>
      </ScrollX>
      <Button mt="sm" variant="light" color="red" onClick={() => void end(() => api.endSessions())}>
        {t.account.endAll}
      </Button>
    </Section>
  );
}

function Notices() {
  const choices = useQuery({ queryKey: ['getNoticeChoices'], queryFn: () => api.getNoticeChoices() });
  const [error, setError] = useState<unknown>(null);
  const choose = async (item: {
    kind: NonNullable<typeof choices.data>['items'][number]['kind'];
    email: boolean;
    webhook: boolean;
  }) => {
    setError(null);
    try {
      await api.putNoticeChoices({ body: { items: [item] } });
      changed('getNoticeChoices');
    } catch (failure) {
      setError(failure);
    }
  };
  return (
    <Section title={t.account.notices}>
      <Text size="sm" c="dimmed" mb="sm">
        {t.account.noticesLead}
      </Text>
      {choices.error && <ErrorNotice error={choices.error} />}
      {error !== null && <ErrorNotice error={error} />}
      <Stack gap="sm">
        {choices.data?.items.map(({ kind, description, email, webhook }) => (
          <Group key={kind} justify="space-between">
            <Text size="sm" flex="1 1 260px">
              {description}
            </Text>
            <Checkbox
              label={t.account.email}
              checked={email}
              onChange={(e) => void choose({ kind, email: e.currentTarget.checked, webhook })}
              aria-label={`${t.account.email}: ${description}`}
            />
            <Checkbox
              label={t.account.webhook}
              checked={webhook}
              onChange={(e) => void choose({ kind, email, webhook: e.currentTarget.checked })}
              aria-label={`${t.account.webhook}: ${description}`}
            />
          </Group>
        ))}
      </Stack>
    </Section>
  );
}

export function AccountPage() {
  return (
    <Page title={t.account.title} narrow>
      <Password />
      <SecondFactor />
      <Sessions />
      <Notices />
    </Page>
  );
}
