import { LatchkeyError } from '@latchkey/client';
import type { Denial } from '@latchkey/contracts';
import { Alert, Button, Group, Paper, Stack, Text, TextInput, Title } from '@mantine/core';
import { IconFileSearch } from '@tabler/icons-react';
import { useState } from 'react';
import { api } from '../api.js';
import { useRoute } from '../app/router.js';
import { t } from '../texts.js';
import { useSubmit } from '../ui/form.js';
import { ErrorNotice } from '../ui/Notice.js';
import { Empty, Page } from '../ui/Page.js';
import { Time } from '../ui/Time.js';

export function RefusedPage() {
  const { query } = useRoute();
  const [requestId, setRequestId] = useState(query.get('requestId') ?? '');
  const [denial, setDenial] = useState<Denial | null>(null);
  const { onSubmit, working, error } = useSubmit(async () => {
    setDenial(null);
    setDenial(await api.getDenial({ params: { requestId: requestId.trim() } }));
  });
  const missing = error instanceof LatchkeyError && error.code === 'not_found';
  return (
    <Page title={t.refused.title} lead={t.refused.lead} narrow>
      <Paper>
        <form onSubmit={onSubmit}>
          <Group align="flex-end" gap="sm">
            <TextInput
              flex="1 1 260px"
              label={t.refused.field}
              placeholder={t.refused.placeholder}
              required
              maxLength={100}
              value={requestId}
              onChange={(e) => setRequestId(e.currentTarget.value)}
              classNames={{ input: 'mono' }}
            />
            <Button type="submit" loading={working}>
              {t.refused.submit}
            </Button>
          </Group>
        </form>
      </Paper>
      {missing && <Alert color="gray">{t.refused.missing}</Alert>}
      {error !== null && !missing && <ErrorNotice error={error} />}
      {denial && <Answer denial={denial} />}
      {!denial && error === null && (
        <Empty
          icon={<IconFileSearch size={36} stroke={1.4} />}
          title={t.refused.emptyTitle}
          text={t.refused.empty}
          points={t.refused.where}
        />
      )}
    </Page>
  );
}

function Answer({ denial }: { denial: Denial }) {
  return (
    <Paper role="status">
      <Title order={2} size="h4">
        {t.refused.reasons[denial.reason]}
      </Title>
      <Text c="dimmed" mt={4}>
        {t.refused.next[denial.reason]}
      </Text>
      <Stack mt="lg" gap="md">
        <dl className="facts">
          <div>
            <dt>{t.refused.reason}</dt>
            <dd className="mono">{denial.reason}</dd>
          </div>
          <div>
            <dt>{t.refused.request}</dt>
            <dd className="mono">
              {denial.method} {denial.route}
            </dd>
          </div>
          <div>
            <dt>{t.audit.where}</dt>
            <dd className="mono">{denial.ip || '–'}</dd>
          </div>
          <div>
            <dt>{t.audit.when}</dt>
            <dd>
              <Time iso={denial.at} />
            </dd>
          </div>
        </dl>
        {denial.tokenId && (
          <div>
            <Button component="a" variant="default" href={`#/api-tokens/${denial.tokenId}`}>
              {t.refused.token}
            </Button>
          </div>
        )}
      </Stack>
    </Paper>
  );
}
