import { LatchkeyError } from '@latchkey/client';
import { Anchor, Button, Center, Paper, PasswordInput, Stack, Text, TextInput, Title } from '@mantine/core';
import { useMutation, useQuery } from '@tanstack/react-query';
import { type FormEvent, useState } from 'react';
import { api, queries } from '../api.js';
import { t } from '../texts.js';
import { ErrorNotice } from '../ui/Notice.js';
import { ResetPassword } from './ResetPassword.js';

export function SignIn() {
  const [email, setEmail] = useState('');
  const [password, setPassword] = useState('');
  const [code, setCode] = useState('');
  const [resetting, setResetting] = useState(false);
  const options = useQuery({ queryKey: ['signInOptions'], queryFn: () => api.signInOptions(), staleTime: 60_000 });
  const signIn = useMutation({
    mutationFn: () => api.signIn({ body: { email, password, ...(code ? { code } : {}) } }),
    onSuccess: (session) => {
      setPassword('');
      queries.setQueryData(['whoAmI'], session);
    },
  });
  const asksCode =
    code !== '' || (signIn.error instanceof LatchkeyError && signIn.error.code === 'second_factor_required');
  const submit = (event: FormEvent) => {
    event.preventDefault();
    signIn.mutate();
  };
  return (
    <Center component="main" mih="100vh" p="md">
      <Stack w="100%" maw={380} gap="lg">
        <Stack gap={4} align="center">
          <img src="/favicon.svg" width={48} height={48} alt="" />
          <Title order={1} size="h3">
            {resetting ? t.signIn.resetTitle : t.signIn.title}
          </Title>
          <Text c="dimmed">{t.signIn.subtitle}</Text>
        </Stack>
        <Paper withBorder p="lg" radius="md">
          {resetting ? (
            <ResetPassword />
          ) : (
            <form onSubmit={submit}>
              <Stack>
                <TextInput
                  label={t.signIn.email}
                  type="email"
                  autoComplete="username"
                  required
                  value={email}
                  onChange={(e) => setEmail(e.currentTarget.value)}
                />
                <PasswordInput
                  label={t.signIn.password}
                  autoComplete="current-password"
                  required
                  value={password}
                  onChange={(e) => setPassword(e.currentTarget.value)}
                />
                {asksCode && (
                  <TextInput
                    label={t.signIn.code}
                    inputMode="numeric"
                    autoComplete="one-time-code"
                    maxLength={6}
                    autoFocus
                    value={code}
                    onChange={(e) => setCode(e.currentTarget.value)}
                  />
                )}
                {signIn.error && <ErrorNotice error={signIn.error} />}
                <Button type="submit" loading={signIn.isPending} fullWidth>
                  {t.signIn.submit}
                </Button>
              </Stack>
            </form>
          )}
          {options.data?.oidc && !resetting && (
            <Button component="a" href={options.data.oidc.url} variant="default" fullWidth mt="sm">
              {t.signIn.with(options.data.oidc.name)}
            </Button>
          )}
        </Paper>
        <Anchor component="button" type="button" size="sm" onClick={() => setResetting((r) => !r)}>
          {resetting ? t.signIn.backToSignIn : t.signIn.forgot}
        </Anchor>
        <Anchor href="#/leaked" size="sm" ta="center">
          {t.signIn.leaked}
        </Anchor>
      </Stack>
    </Center>
  );
}
