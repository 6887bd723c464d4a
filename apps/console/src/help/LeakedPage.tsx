import { Alert, Anchor, Button, Paper, Stack, Textarea } from '@mantine/core';
import { useState } from 'react';
import { api, changed } from '../api.js';
import { t } from '../texts.js';
import { Buttons } from '../ui/Confirm.js';
import { useSubmit } from '../ui/form.js';
import { ErrorNotice } from '../ui/Notice.js';
import { Page } from '../ui/Page.js';

export function LeakedPage() {
  const [text, setText] = useState('');
  const [thanks, setThanks] = useState(false);
  const { onSubmit, working, error } = useSubmit(async () => {
    await api.revokeExposed({ body: { tokens: text.split(/\s+/).filter(Boolean) } });
    setText('');
    setThanks(true);
    changed('listTokens', 'getToken');
  });
  return (
    <Page title={t.leaked.title} lead={t.leaked.lead} narrow>
      <Paper>
        <form onSubmit={onSubmit}>
          <Stack>
            <Textarea
              label={t.leaked.field}
              description={t.leaked.hint}
              required
              autosize
              minRows={4}
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
            <Buttons>
              <Button type="submit" color="red" loading={working} disabled={text.trim() === ''}>
                {t.leaked.submit}
              </Button>
            </Buttons>
          </Stack>
        </form>
      </Paper>
    </Page>
  );
}

/** The same for people who are not signed in. */
export function PublicLeakedPage() {
  return (
    <main className="signed-out signed-out-wide">
      <LeakedPage />
      <Anchor href="#/api-tokens" size="sm" ta="center">
        {t.signIn.backToSignIn}
      </Anchor>
    </main>
  );
}
