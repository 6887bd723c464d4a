import { LatchkeyError } from '@latchkey/client';
import { Alert, Anchor, Button, Stack, Text, TextInput } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { useEffect, useState } from 'react';
import { api, queries } from '../api.js';
import { t } from '../texts.js';
import { useSubmit } from '../ui/form.js';
import { ErrorNotice } from '../ui/Notice.js';
import { go, keepInAddress, useRoute } from './router.js';
import { CodeField, CurrentPasswordField, EmailField, NewPasswordField, SignedOutPage } from './SignedOutPage.js';

/** Signing in; under `#/forgot`, asking for a link by email; under `#/reset`, setting a password with the code of one. */
export function SignIn() {
  const { segments, query } = useRoute();
  const [email, setEmail] = useState((query.get('email') ?? '').slice(0, 254));
  const common = { email, onEmail: setEmail };
  if (segments[0] === 'reset') return <Reset {...common} />;
  return segments[0] === 'forgot' ? <Forgot {...common} /> : <Enter {...common} />;
}

const isAsked = (error: unknown) => error instanceof LatchkeyError && error.code === 'second_factor_required';

interface Props {
  email: string;
  onEmail(email: string): void;
}

function Enter({ email, onEmail }: Props) {
  const { query, segments } = useRoute();
  const [password, setPassword] = useState('');
  const [code, setCode] = useState('');
  const options = useQuery({ queryKey: ['signInOptions'], queryFn: () => api.signInOptions(), staleTime: 60_000 });
  const { onSubmit, working, error } = useSubmit(async () => {
    const session = await api.signIn({ body: { email, password, ...(code ? { code } : {}) } });
    setPassword('');
    if (segments[0] === 'sign-in') go('/api-tokens');
    queries.setQueryData(['whoAmI'], session);
  });
  const wantsCode = isAsked(error);
  const asksCode = code !== '' || wantsCode;
  const failed = segments[0] === 'sign-in' ? query.get('failed') : null;
  return (
    <SignedOutPage
      title={t.signIn.title}
      lead={t.signIn.subtitle}
      below={
        <Stack gap={6}>
          {options.data?.forgotPassword && <Anchor href="#/forgot">{t.signIn.forgotten}</Anchor>}
          <Anchor href="#/reset">{t.signIn.forgot}</Anchor>
          <Anchor href="#/leaked">{t.signIn.leaked}</Anchor>
        </Stack>
      }
    >
      <Stack>
        {failed && !error && <Failed why={failed} requestId={query.get('requestId')} />}
        <form onSubmit={onSubmit}>
          <Stack>
            <EmailField value={email} onChange={onEmail} />
            <CurrentPasswordField label={t.signIn.password} value={password} onChange={setPassword} />
            {asksCode && <CodeField value={code} onChange={setCode} autoFocus />}
            {error !== null && !(wantsCode && code === '') && <ErrorNotice error={error} />}
            {wantsCode && code === '' && (
              <Text size="sm" role="status">
                {t.signIn.codeAsked}
              </Text>
            )}
            <Button type="submit" loading={working} fullWidth>
              {t.signIn.submit}
            </Button>
          </Stack>
        </form>
        {options.data?.oidc && (
          <Button component="a" href={options.data.oidc.url} variant="default" fullWidth>
            {t.signIn.with(options.data.oidc.name)}
          </Button>
        )}
      </Stack>
    </SignedOutPage>
  );
}

/** Why a sign-in at another service did not succeed, told by the word that it came back with. */
function Failed({ why, requestId }: { why: string; requestId: string | null }) {
  return (
    <Alert color="red" title={t.errors.titles['sign_in_failed']} role="alert">
      <Text size="sm">{t.signIn.failed[why] ?? t.signIn.failed['refused']}</Text>
      {requestId && (
        <Text size="xs" c="dimmed" mt="xs">
          {t.errors.requestId} <span className="mono anywhere">{requestId.slice(0, 64)}</span>
        </Text>
      )}
    </Alert>
  );
}

function Forgot({ email, onEmail }: Props) {
  const [done, setDone] = useState(false);
  const { onSubmit, working, error } = useSubmit(async () => {
    await api.forgotPassword({ body: { email } });
    setDone(true);
  });
  return (
    <SignedOutPage
      title={t.signIn.forgotten}
      lead={t.signIn.forgottenLead}
      below={<Anchor href="#/api-tokens">{t.signIn.backToSignIn}</Anchor>}
    >
      <form onSubmit={onSubmit}>
        <Stack>
          <EmailField value={email} onChange={onEmail} />
          {done && (
            <Alert color="green" role="status">
              {t.signIn.forgottenDone}
            </Alert>
          )}
          {error !== null && <ErrorNotice error={error} />}
          <Button type="submit" loading={working} fullWidth>
            {t.signIn.forgottenSubmit}
          </Button>
        </Stack>
      </form>
    </SignedOutPage>
  );
}

/** The link of a letter brings the code along; it is taken out of the address, and so out of the history, at once. */
function Reset({ email, onEmail }: Props) {
  const { query } = useRoute();
  const [code, setCode] = useState((query.get('code') ?? '').slice(0, 100));
  useEffect(() => keepInAddress({ code: null, email: null }), []);
  const [newPassword, setNewPassword] = useState('');
  const [factor, setFactor] = useState('');
  const [done, setDone] = useState(false);
  const { onSubmit, working, error } = useSubmit(async () => {
    try {
      await api.setPassword({ body: { email, code, newPassword, ...(factor ? { secondFactor: factor } : {}) } });
      setDone(true);
      setCode('');
      setNewPassword('');
    } catch (failure) {
      if (!isAsked(failure)) setNewPassword('');
      throw failure;
    }
  });
  const wantsFactor = isAsked(error);
  return (
    <SignedOutPage
      title={t.signIn.resetTitle}
      lead={t.signIn.resetLead}
      below={<Anchor href="#/api-tokens">{t.signIn.backToSignIn}</Anchor>}
    >
      {done ? (
        <Stack>
          <Alert color="green" role="status">
            {t.signIn.resetDone}
          </Alert>
          <Button onClick={() => go('/api-tokens')}>{t.signIn.backToSignIn}</Button>
        </Stack>
      ) : (
        <form onSubmit={onSubmit}>
          <Stack>
            <EmailField value={email} onChange={onEmail} />
            <TextInput
              label={t.signIn.resetCode}
              autoComplete="off"
              required
              maxLength={100}
              value={code}
              onChange={(e) => setCode(e.currentTarget.value.trim())}
            />
            <NewPasswordField value={newPassword} onChange={setNewPassword} error={error} />
            {(factor !== '' || wantsFactor) && <CodeField value={factor} onChange={setFactor} autoFocus />}
            {error !== null && !wantsFactor && <ErrorNotice error={error} />}
            {wantsFactor && (
              <Text size="sm" role="status">
                {t.signIn.factorAsked}
              </Text>
            )}
            <Button type="submit" loading={working} fullWidth>
              {t.signIn.reset}
            </Button>
          </Stack>
        </form>
      )}
    </SignedOutPage>
  );
}
