import { LatchkeyError } from '@latchkey/client';
import type { Denial } from '@latchkey/contracts';
import { Alert, Anchor, Button, Group, Stack, Text, TextInput } from '@mantine/core';
import { type FormEvent, useState } from 'react';
import { api } from '../api.js';
import { useRoute } from '../app/router.js';
import { t } from '../texts.js';
import { ErrorNotice } from '../ui/Notice.js';
import { Page } from '../ui/Page.js';
import { Time } from '../ui/Time.js';

export function RefusedPage() {
  const { query } = useRoute();
  const [requestId, setRequestId] = useState(query.get('requestId') ?? '');
  const [working, setWorking] = useState(false);
  const [denial, setDenial] = useState<Denial | null>(null);
  const [error, setError] = useState<unknown>(null);
  const look = async (event: FormEvent) => {
    event.preventDefault();
    setWorking(true);
    setError(null);
    setDenial(null);
    try {
      setDenial(await api.getDenial({ params: { requestId: requestId.trim() } }));
    } catch (failure) {
      setError(failure);
    } finally {
      setWorking(false);
    }
  };
  const missing = error instanceof LatchkeyError && error.code === 'not_found';
  return (
    <Page title={t.refused.title} lead={t.refused.lead} narrow>
      <form onSubmit={(e) => void look(e)}>
        <Group align="flex-end">
          <TextInput
            flex={1}
            label={t.refused.field}
            required
            maxLength={100}
            value={requestId}
            onChange={(e) => setRequestId(e.currentTarget.value)}
            className="mono"
          />
          <Button type="submit" loading={working}>
            {t.refused.submit}
          </Button>
        </Group>
      </form>
      {missing && <Alert color="gray">{t.refused.missing}</Alert>}
      {error !== null && !missing && <ErrorNotice error={error} />}
      {denial && (
        <Alert color="cyan" title={denial.reason} role="status">
          <Stack gap={6}>
            <Text>{t.refused.reasons[denial.reason]}</Text>
            <Text size="sm" c="dimmed">
              <span className="mono">
                {denial.method} {denial.route}
              </span>{' '}
              · <span className="mono">{denial.ip}</span> · <Time iso={denial.at} />
            </Text>
            {denial.tokenId && <Anchor href={`#/api-tokens/${denial.tokenId}`}>{t.tokens.view}</Anchor>}
          </Stack>
        </Alert>
      )}
    </Page>
  );
}
