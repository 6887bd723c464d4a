import { LatchkeyError } from '@latchkey/client';
import { Button, Stack, Text } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { useState } from 'react';
import { api, queries } from '../api.js';
import { t } from '../texts.js';
import { useSubmit } from '../ui/form.js';
import { ErrorNotice } from '../ui/Notice.js';
import { CodeField, CurrentPasswordField } from './SignedOutPage.js';
import { useUser } from './session.js';

/** Whether the call has to be repeated after a newer sign-in. */
export const needsNewSignIn = (error: unknown): boolean =>
  error instanceof LatchkeyError && error.code === 'reauthentication_required';

/** The person signed in shows that it is still them. */
export function SignInAgain({ onSignedIn }: { onSignedIn(): void }) {
  const { email } = useUser();
  const [password, setPassword] = useState('');
  const [code, setCode] = useState('');
  const options = useQuery({ queryKey: ['signInOptions'], queryFn: () => api.signInOptions(), staleTime: 60_000 });
  const { onSubmit, working, error } = useSubmit(async () => {
    const session = await api.signIn({ body: { email, password, ...(code ? { code } : {}) } });
    setPassword('');
    queries.setQueryData(['whoAmI'], session);
    onSignedIn();
  });
  const wantsCode = error instanceof LatchkeyError && error.code === 'second_factor_required';
  const isFirstAsk = wantsCode && code === '';
  return (
    <form onSubmit={onSubmit}>
      <Stack>
        <Text size="sm">{t.restore.signInLead}</Text>
        <CurrentPasswordField label={t.signIn.password} value={password} onChange={setPassword} />
        {(code !== '' || wantsCode) && <CodeField value={code} onChange={setCode} autoFocus />}
        {error !== null && !isFirstAsk && <ErrorNotice error={error} />}
        {isFirstAsk && (
          <Text size="sm" role="status">
            {t.signIn.codeAsked}
          </Text>
        )}
        <Button type="submit" loading={working}>
          {t.restore.signIn}
        </Button>
        {options.data?.oidc && (
          <Button component="a" href={options.data.oidc.url} variant="default">
            {t.restore.signInElsewhere(options.data.oidc.name)}
          </Button>
        )}
      </Stack>
    </form>
  );
}
