import type { Policy } from '@latchkey/contracts';
import { Alert, Button, Checkbox, Group, NumberInput, Paper, Stack, TextInput } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { type FormEvent, useState } from 'react';
import { api, changed, fieldError } from '../api.js';
import { t } from '../texts.js';
import { ErrorNotice } from '../ui/Notice.js';
import { Page } from '../ui/Page.js';

const DAY_SECONDS = 86_400;

function PolicyForm({ policy }: { policy: Policy }) {
  const [days, setDays] = useState<number | string>(
    policy.lifetimeSecondsMax === null ? '' : policy.lifetimeSecondsMax / DAY_SECONDS,
  );
  const [expiryRequired, setExpiryRequired] = useState(policy.expiryRequired);
  const [prefixes, setPrefixes] = useState(policy.allowedIpPrefixes.join(' '));
  const [idle, setIdle] = useState<number | string>(policy.idleDays ?? '');
  const [saved, setSaved] = useState(false);
  const [error, setError] = useState<unknown>(null);
  const save = async (event: FormEvent) => {
    event.preventDefault();
    setError(null);
    setSaved(false);
    try {
      await api.putPolicy({
        body: {
          lifetimeSecondsMax: days === '' ? null : Math.round(Number(days) * DAY_SECONDS),
          expiryRequired,
          allowedIpPrefixes: prefixes.split(/[\s,]+/).filter(Boolean),
          idleDays: idle === '' ? null : Number(idle),
        },
      });
      setSaved(true);
      changed('getPolicy');
    } catch (failure) {
      setError(failure);
    }
  };
  return (
    <Paper withBorder p="md" radius="md">
      <form onSubmit={(e) => void save(e)}>
        <Stack maw={420}>
          <NumberInput
            label={t.policy.lifetime}
            description={t.policy.lifetimeHint}
            min={1}
            value={days}
            onChange={setDays}
            error={fieldError(error, 'lifetimeSecondsMax')}
          />
          <Checkbox
            label={t.policy.expiry}
            checked={expiryRequired}
            onChange={(e) => setExpiryRequired(e.currentTarget.checked)}
          />
          <TextInput
            label={t.policy.prefixes}
            description={t.policy.prefixesHint}
            value={prefixes}
            onChange={(e) => setPrefixes(e.currentTarget.value)}
            error={fieldError(error, 'allowedIpPrefixes')}
          />
          <NumberInput
            label={t.policy.idle}
            description={t.policy.idleHint}
            min={1}
            max={3_650}
            allowDecimal={false}
            value={idle}
            onChange={setIdle}
            error={fieldError(error, 'idleDays')}
          />
          {error !== null && <ErrorNotice error={error} />}
          {saved && (
            <Alert color="green" role="status">
              {t.policy.saved}
            </Alert>
          )}
          <Group>
            <Button type="submit">{t.actions.save}</Button>
          </Group>
        </Stack>
      </form>
    </Paper>
  );
}

export function PolicyPage() {
  const policy = useQuery({ queryKey: ['getPolicy'], queryFn: () => api.getPolicy() });
  return (
    <Page title={t.policy.title} lead={t.policy.lead} narrow>
      {policy.error && <ErrorNotice error={policy.error} retry={() => void policy.refetch()} />}
      {policy.data && <PolicyForm policy={policy.data} />}
    </Page>
  );
}
