import type { Effect, PersonRole, User } from '@latchkey/contracts';
import { Alert, Badge, Button, Group, Menu, Paper, PasswordInput, Select, Stack, Text, TextInput } from '@mantine/core';
import { useDebouncedValue } from '@mantine/hooks';
import { IconDots, IconPlus, IconSearch } from '@tabler/icons-react';
import { keepPreviousData, useQuery } from '@tanstack/react-query';
import { useState } from 'react';
import { api, changed, fieldError } from '../api.js';
import { useUser } from '../app/session.js';
import { t } from '../texts.js';
import { EffectView } from '../tokens/Receipt.js';
import { Buttons, Confirm, type Question } from '../ui/Confirm.js';
import { CopyIcon } from '../ui/Copy.js';
import { Dialog } from '../ui/Dialog.js';
import { useSubmit } from '../ui/form.js';
import { ErrorNotice } from '../ui/Notice.js';
import { Loading, Page } from '../ui/Page.js';
import { fromNow, Time } from '../ui/Time.js';

const ROLES = Object.entries(t.people.roles).map(([value, label]) => ({ value, label }));

/** What is handed over to somebody so that they can set a password of their own; shown once. */
interface Handover {
  name: string;
  email: string;
  code: string;
  expiresAt: string;
}

/** A new person; without a password, a code follows with which they set one themselves. */
function Create({ onClose, onInvited }: { onClose(): void; onInvited(handover: Handover): void }) {
  const [email, setEmail] = useState('');
  const [name, setName] = useState('');
  const [role, setRole] = useState<PersonRole>('member');
  const [password, setPassword] = useState('');
  const { onSubmit, working, error } = useSubmit(async () => {
    const user = await api.createUser({ body: { email, name, role, ...(password ? { password } : {}) } });
    changed('listUsers', 'listAudit');
    // Where letters are sent, an invitation is on its way already.
    const { forgotPassword: invited } = await api.signInOptions();
    if (!password && !invited) onInvited({ ...user, ...(await api.resetPassword({ params: { id: user.id } })) });
    onClose();
  });
  return (
    <Dialog onClose={onClose} title={t.people.create}>
      <form onSubmit={onSubmit}>
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
            description={t.people.passwordHint}
            autoComplete="new-password"
            value={password}
            onChange={(e) => setPassword(e.currentTarget.value)}
            error={fieldError(error, 'password')}
          />
          {error !== null && <ErrorNotice error={error} />}
          <Buttons>
            <Button variant="default" onClick={onClose}>
              {t.actions.cancel}
            </Button>
            <Button type="submit" loading={working}>
              {t.people.create}
            </Button>
          </Buttons>
        </Stack>
      </form>
    </Dialog>
  );
}

function HandoverDialog({ handover, onClose }: { handover: Handover; onClose(): void }) {
  return (
    <Dialog onClose={onClose} title={t.people.handover(handover.name)}>
      <Stack>
        <Text>{t.people.resetLead(fromNow(handover.expiresAt))}</Text>
        <Group className="secret" justify="space-between" wrap="nowrap">
          <span data-testid="code">{handover.code}</span>
          <CopyIcon value={handover.code} />
        </Group>
        <Text size="sm" c="dimmed" className="anywhere">
          {t.people.resetWhere(`${window.location.origin}/#/reset`, handover.email)}
        </Text>
        <Buttons>
          <Button onClick={onClose}>{t.actions.done}</Button>
        </Buttons>
      </Stack>
    </Dialog>
  );
}

interface RowActions {
  ask(question: Question): void;
  change(work: () => Promise<Effect>): Promise<void>;
  run(work: () => Promise<unknown>): Promise<void>;
  handOver(handover: Handover): void;
}

function PersonMenu({ user, ask, change, run, handOver }: RowActions & { user: User }) {
  const params = { id: user.id };
  const confirmedChange = (title: string, lead: string, confirm: string, work: () => Promise<Effect>): Question => ({
    title,
    lead,
    confirm,
    work: async () => {
      const effect = await work();
      changed('listUsers', 'listTokens', 'getToken', 'listAudit');
      return <EffectView effect={effect} refused />;
    },
  });
  return (
    <Menu position="bottom-end" width={220}>
      <Menu.Target>
        <button type="button" className="plain dots" aria-label={t.tokens.menu(user.name)}>
          <IconDots size={18} aria-hidden />
        </button>
      </Menu.Target>
      <Menu.Dropdown>
        <Menu.Item
          onClick={() => void run(async () => handOver({ ...user, ...(await api.resetPassword({ params })) }))}
        >
          {t.people.reset}
        </Menu.Item>
        <Menu.Item
          onClick={() =>
            ask({
              title: t.people.resetFactorTitle(user.name),
              lead: t.people.resetFactorLead,
              confirm: t.people.resetFactor,
              work: async () => {
                await api.resetSecondFactor({ params });
                changed('listAudit');
                return <Alert color="green">{t.people.factorRemoved}</Alert>;
              },
            })
          }
        >
          {t.people.resetFactor}
        </Menu.Item>
        <Menu.Divider />
        {user.disabled ? (
          <Menu.Item onClick={() => void change(() => api.patchUser({ params, body: { disabled: false } }))}>
            {t.people.enable}
          </Menu.Item>
        ) : (
          <Menu.Item
            color="red"
            onClick={() =>
              ask(
                confirmedChange(t.people.disableTitle(user.name), t.people.disableLead, t.people.disable, () =>
                  api.patchUser({ params, body: { disabled: true } }),
                ),
              )
            }
          >
            {t.people.disable}
          </Menu.Item>
        )}
        <Menu.Item
          color="red"
          onClick={() =>
            ask(
              confirmedChange(
                t.people.revokeAllTitle(user.name),
                t.people.revokeAllLead(user.name),
                t.people.revokeAll,
                () => api.revokeUserTokens({ params }),
              ),
            )
          }
        >
          {t.people.revokeAll}
        </Menu.Item>
      </Menu.Dropdown>
    </Menu>
  );
}

export function PeoplePage() {
  const me = useUser();
  const [search, setSearch] = useState('');
  const [q] = useDebouncedValue(search.trim(), 250);
  const [creating, setCreating] = useState(false);
  const [question, setQuestion] = useState<Question | null>(null);
  const [effect, setEffect] = useState<Effect | null>(null);
  const [error, setError] = useState<unknown>(null);
  const [handover, setHandover] = useState<Handover | null>(null);
  const list = useQuery({
    queryKey: ['listUsers', q],
    queryFn: () => api.listUsers({ query: { limit: 100, ...(q ? { q } : {}) } }),
    placeholderData: keepPreviousData,
  });
  const run = async (work: () => Promise<unknown>) => {
    setError(null);
    setEffect(null);
    try {
      await work();
    } catch (failure) {
      setError(failure);
    } finally {
      changed('listUsers', 'listTokens', 'listAudit');
    }
  };
  const change = (work: () => Promise<Effect>) => run(async () => setEffect(await work()));
  const actions = { ask: setQuestion, change, run, handOver: setHandover };
  return (
    <Page
      title={t.people.title}
      lead={t.people.lead}
      actions={
        <Button leftSection={<IconPlus size={16} />} onClick={() => setCreating(true)}>
          {t.people.create}
        </Button>
      }
    >
      <TextInput
        aria-label={t.people.search}
        placeholder={t.people.search}
        leftSection={<IconSearch size={16} />}
        value={search}
        maxLength={100}
        onChange={(e) => setSearch(e.currentTarget.value)}
        maw={360}
      />
      {list.error && <ErrorNotice error={list.error} retry={() => void list.refetch()} />}
      {error !== null && <ErrorNotice error={error} />}
      {effect && <EffectView effect={effect} />}
      {list.isPending && <Loading />}
      {list.data?.items.length === 0 && <Text c="dimmed">{t.people.empty}</Text>}
      {list.data && list.data.items.length > 0 && (
        <Paper py="xs">
          <ul className="lines">
            {list.data.items.map((user) => (
              <li key={user.id}>
                <div className="grow">
                  <Group gap="xs">
                    <Text size="sm" fw={600} className="anywhere">
                      {user.name}
                    </Text>
                    {user.id === me.id && (
                      <Badge variant="light" tt="none">
                        {t.people.you}
                      </Badge>
                    )}
                    {user.disabled && (
                      <Badge color="orange" variant="light" tt="none">
                        {t.people.disabled}
                      </Badge>
                    )}
                  </Group>
                  <Text size="xs" c="dimmed" className="anywhere">
                    {user.email} · {t.people.since} <Time iso={user.createdAt} />
                  </Text>
                </div>
                <Group gap="xs" wrap="nowrap">
                  <Select
                    aria-label={`${t.people.role}: ${user.name}`}
                    size="xs"
                    data={ROLES}
                    value={user.role}
                    allowDeselect={false}
                    w={150}
                    onChange={(value) =>
                      value &&
                      void change(() => api.patchUser({ params: { id: user.id }, body: { role: value as PersonRole } }))
                    }
                  />
                  <PersonMenu user={user} {...actions} />
                </Group>
              </li>
            ))}
          </ul>
        </Paper>
      )}
      {list.data?.nextCursor && (
        <Text size="sm" c="dimmed">
          {t.people.more}
        </Text>
      )}
      {creating && <Create onClose={() => setCreating(false)} onInvited={setHandover} />}
      {handover && <HandoverDialog handover={handover} onClose={() => setHandover(null)} />}
      {question && <Confirm question={question} onClose={() => setQuestion(null)} />}
    </Page>
  );
}
