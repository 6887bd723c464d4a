import type { Effect, PersonRole, User } from '@latchkey/contracts';
import {
  Badge,
  Button,
  Group,
  Menu,
  Modal,
  Paper,
  PasswordInput,
  Select,
  Stack,
  Table,
  Text,
  TextInput,
} from '@mantine/core';
import { IconPlus } from '@tabler/icons-react';
import { useQuery } from '@tanstack/react-query';
import { type FormEvent, useState } from 'react';
import { api, changed, fieldError } from '../api.js';
import { t } from '../texts.js';
import { EffectView } from '../tokens/Receipt.js';
import { CopyIcon } from '../ui/Copy.js';
import { ErrorNotice } from '../ui/Notice.js';
import { Page, ScrollX } from '../ui/Page.js';
import { fromNow, Time } from '../ui/Time.js';

const ROLES = Object.entries(t.people.roles).map(([value, label]) => ({ value, label }));

function Create({ onClose }: { onClose(): void }) {
  const [email, setEmail] = useState('');
  const [name, setName] = useState('');
  const [role, setRole] = useState<PersonRole>('member');
  const [password, setPassword] = useState('');
  const [error, setError] = useState<unknown>(null);
  const submit = async (event: FormEvent) => {
    event.preventDefault();
    try {
      await api.createUser({ body: { email, name, role, ...(password ? { password } : {}) } });
      changed('listUsers', 'listAudit');
      onClose();
    } catch (failure) {
      setError(failure);
    }
  };
  return (
    <Modal opened onClose={onClose} title={t.people.create}>
      <form onSubmit={(e) => void submit(e)}>
        <Stack>
          <TextInput
            label={t.people.email}
            type="email"
            required
            data-autofocus
            value={email}
            onChange={(e) => setEmail(e.currentTarget.value)}
            error={fieldError(error, 'email')}
          />
          <TextInput
            label={t.people.name}
            required
            maxLength={100}
            value={name}
            onChange={(e) => setName(e.currentTarget.value)}
            error={fieldError(error, 'name')}
          />
          <Select
            label={t.people.role}
            data={ROLES}
            value={role}
            allowDeselect={false}
            onChange={(v) => setRole((v ?? 'member') as PersonRole)}
          />
          <PasswordInput
            label={t.people.password}
            autoComplete="new-password"
            value={password}
            onChange={(e) => setPassword(e.currentTarget.value)}
            error={fieldError(error, 'password')}
          />
          {error !== null && <ErrorNotice error={error} />}
          <Group justify="flex-end">
            <Button variant="default" onClick={onClose}>
              {t.actions.cancel}
            </Button>
            <Button type="submit">{t.people.create}</Button>
          </Group>
        </Stack>
      </form>
    </Modal>
  );
}

interface Question {
  title: string;
  lead: string;
  work(): Promise<Effect>;
}

export function PeoplePage() {
  const [search, setSearch] = useState('');
  const [creating, setCreating] = useState(false);
  const [question, setQuestion] = useState<Question | null>(null);
  const [effect, setEffect] = useState<Effect | null>(null);
  const [error, setError] = useState<unknown>(null);
  const [handover, setHandover] = useState<{ code: string; expiresAt: string } | null>(null);
  const q = search.trim();
  const list = useQuery({
    queryKey: ['listUsers', q],
    queryFn: () => api.listUsers({ query: { limit: 100, ...(q ? { q } : {}) } }),
  });
  const change = async (work: () => Promise<Effect>) => {
    setError(null);
    setEffect(null);
    setQuestion(null);
    try {
      setEffect(await work());
    } catch (failure) {
      setError(failure);
    } finally {
      changed('listUsers', 'listTokens', 'listAudit');
    }
  };
  const reset = async (user: User) => {
    setError(null);
    try {
      setHandover(await api.resetPassword({ params: { id: user.id } }));
    } catch (failure) {
      setError(failure);
    }
  };
  const removeFactor = async (user: User) => {
    setError(null);
    try {
      await api.resetSecondFactor({ params: { id: user.id } });
      changed('listAudit');
    } catch (failure) {
      setError(failure);
    }
  };
  const setDisabled = (user: User, disabled: boolean) => () =>
    api.patchUser({ params: { id: user.id }, body: { disabled } });
  return (
    <Page
      title={t.people.title}
      actions={
        <Button leftSection={<IconPlus size={16} />} onClick={() => setCreating(true)}>
          {t.people.create}
        </Button>
      }
    >
      <TextInput
        aria-label={t.tokens.search}
        placeholder={t.people.name}
        value={search}
        maxLength={100}
        onChange={(e) => setSearch(e.currentTarget.value)}
        maw={320}
      />
      {list.error && <ErrorNotice error={list.error} retry={() => void list.refetch()} />}
      {error !== null && <ErrorNotice error={error} />}
      {effect && <EffectView effect={effect} />}
      <Paper withBorder radius="md">
        <ScrollX label={t.people.title}>
          <Table verticalSpacing="sm">
            <Table.Thead>
              <Table.Tr>
                <Table.Th>{t.people.name}</Table.Th>
                <Table.Th>{t.people.role}</Table.Th>
                <Table.Th>{t.tokens.columns.created}</Table.Th>
                <Table.Th>
                  <span className="visually-hidden">{t.tokens.columns.actions}</span>
                </Table.Th>
              </Table.Tr>
            </Table.Thead>
            <Table.Tbody>
              {list.data?.items.map((user) => (
                <Table.Tr key={user.id}>
                  <Table.Td>
                    {user.name}{' '}
                    {user.disabled && (
                      <Badge color="orange" variant="light" tt="none">
                        {t.people.disabled}
                      </Badge>
                    )}
                    <Text size="xs" c="dimmed">
                      {user.email}
                    </Text>
                  </Table.Td>
                  <Table.Td>
                    <Select
                      aria-label={`${t.people.role}: ${user.name}`}
                      data={ROLES}
                      value={user.role}
                      allowDeselect={false}
                      miw={150}
                      maw={180}
                      onChange={(value) =>
                        value &&
                        void change(() =>
                          api.patchUser({ params: { id: user.id }, body: { role: value as PersonRole } }),
                        )
                      }
                    />
                  </Table.Td>
                  <Table.Td>
                    <Time iso={user.createdAt} />
                  </Table.Td>
                  <Table.Td ta="right">
                    <Menu position="bottom-end">
                      <Menu.Target>
                        <Button variant="subtle" size="xs" aria-label={t.tokens.menu(user.name)}>
                          …
                        </Button>
                      </Menu.Target>
                      <Menu.Dropdown>
                        {user.disabled ? (
                          <Menu.Item onClick={() => void change(setDisabled(user, false))}>{t.people.enable}</Menu.Item>
                        ) : (
                          <Menu.Item
                            color="red"
                            onClick={() =>
                              setQuestion({
                                title: `${t.people.disable}: ${user.name}`,
                                lead: t.people.disableLead,
                                work: setDisabled(user, true),
                              })
                            }
                          >
                            {t.people.disable}
                          </Menu.Item>
                        )}
                        <Menu.Item onClick={() => void reset(user)}>{t.people.reset}</Menu.Item>
                        <Menu.Item onClick={() => void removeFactor(user)}>{t.people.resetFactor}</Menu.Item>
                        <Menu.Item
                          color="red"
                          onClick={() =>
                            setQuestion({
                              title: t.people.revokeAll,
                              lead: t.people.revokeAllLead(user.name),
                              work: () => api.revokeUserTokens({ params: { id: user.id } }),
                            })
                          }
                        >
                          {t.people.revokeAll}
                        </Menu.Item>
                      </Menu.Dropdown>
                    </Menu>
                  </Table.Td>
                </Table.Tr>
              ))}
            </Table.Tbody>
          </Table>
        </ScrollX>
      </Paper>
      {creating && <Create onClose={() => setCreating(false)} />}
      {handover && (
        <Modal opened onClose={() => setHandover(null)} title={t.people.reset}>
          <Stack>
            <Text>{t.people.resetLead(fromNow(handover.expiresAt))}</Text>
            <Group className="secret" justify="space-between" wrap="nowrap">
              {handover.code}
              <CopyIcon value={handover.code} />
            </Group>
          </Stack>
        </Modal>
      )}
      {question && (
        <Modal opened onClose={() => setQuestion(null)} title={question.title}>
          <Stack>
            <Text>{question.lead}</Text>
            <Group justify="flex-end">
              <Button variant="default" onClick={() => setQuestion(null)}>
                {t.actions.cancel}
              </Button>
              <Button color="red" onClick={() => void change(question.work)}>
                {question.title.split(':')[0]}
              </Button>
            </Group>
          </Stack>
        </Modal>
      )}
    </Page>
  );
}
