import { Alert, Button, Group, Stack, Textarea } from '@mantine/core';
import { type FormEvent, useState } from 'react';
import { api, changed } from '../api.js';
import { t } from '../texts.js';
import { ErrorNotice } from '../ui/Notice.js';
import { Page } from '../ui/Page.js';

export function LeakedPage() {
  const [text, setText] = useState('');
  const [working, setWorking] = useState(false);
  const [thanks, setThanks] = useState(false);
  const [error, setError] = useState<unknown>(null);
  const report = async (event: FormEvent) => {
    event.preventDefault();
    setWorking(true);
    setError(null);
    try {
      await api.revokeExposed({ body: { tokens: text.split(/\s+/).filter(Boolean) } });
      setText('');
      setThanks(true);
      changed('listTokens', 'getToken');
    } catch (failure) {
      setError(failure);
    } finally {
      setWorking(false);
    }
  };
  return (
    <Page title={t.leaked.title} lead={t.leaked.lead} narrow>
      <form onSubmit={(e) => void report(e)}>
        <Stack>
          <Textarea
            label={t.leaked.field}
            required
            autosize
            minRows={3}
            maxRows={12}
            spellCheck={false}
            autoComplete="off"
            value={text}
            onChange={(e) => {
              setText(e.currentTarget.value);
              setThanks(false);
            }}
            classNames={{ input: 'mono' }}
          />
          {thanks && (
            <Alert color="green" role="status">
              {t.leaked.thanks}
            </Alert>
          )}
          {error !== null && <ErrorNotice error={error} />}
          <Group justify="flex-end">
            <Button type="submit" color="red" loading={working} disabled={text.trim() === ''}>
              {t.leaked.submit}
            </Button>
          </Group>
        </Stack>
      </form>
    </Page>
  );
}
