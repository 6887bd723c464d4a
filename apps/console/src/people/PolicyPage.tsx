import type { Policy } from '@latchkey/contracts';
import { Alert, Button, Checkbox, Group, NumberInput, Paper, Stack, TextInput } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { useState } from 'react';
import { api, changed, fieldError } from '../api.js';
import { t } from '../texts.js';
import { useSubmit } from '../ui/form.js';
import { ErrorNotice } from '../ui/Notice.js';
import { Loading, Page } from '../ui/Page.js';

const DAY_SECONDS = 86_400;

function PolicyForm({ policy }: { policy: Policy }) {
  const [days, setDays] = useState<number | string>(
    policy.lifetimeSecondsMax === null ? '' : policy.lifetimeSecondsMax / DAY_SECONDS,
  );
  const [expiryRequired, setExpiryRequired] = useState(policy.expiryRequired);
  const [prefixes, setPrefixes] = useState(policy.allowedIpPrefixes.join(' '));
  const [idle, setIdle] = useState<number | string>(policy.idleDays ?? '');
  const [saved, setSaved] = useState(false);
  const { onSubmit, working, error } = useSubmit(async () => {
    setSaved(false);
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
  });
  return (
    <Paper>
      <form onSubmit={onSubmit}>
        <Stack maw={460}>
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
            description={t.policy.expiryHint}
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
            <Button type="submit" loading={working}>
              {t.actions.save}
            </Button>
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
      {policy.isPending && <Loading />}
      {policy.data && <PolicyForm policy={policy.data} />}
    </Page>
  );
}
