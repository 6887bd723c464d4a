import { Alert, Button, Code, Group, Text } from '@mantine/core';
import { explain } from '../api.js';
import { t } from '../texts.js';

/** What went wrong, what to do, and the request's id to ask somebody about it. */
export function ErrorNotice({ error, retry }: { error: unknown; retry?: () => void }) {
  const { title, detail, requestId } = explain(error);
  return (
    <Alert color="red" title={title} role="alert">
      <Text size="sm">{detail}</Text>
      <Group mt={requestId || retry ? 'xs' : 0} gap="sm">
        {requestId && (
          <Text size="xs" c="dimmed">
            {t.errors.requestId} <Code>{requestId}</Code>
          </Text>
        )}
        {retry && (
          <Button size="compact-xs" variant="light" color="red" onClick={retry}>
            {t.actions.retry}
          </Button>
        )}
      </Group>
    </Alert>
  );
}
