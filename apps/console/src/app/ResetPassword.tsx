import { Alert, Button, PasswordInput, Stack, TextInput } from '@mantine/core';
import { type FormEvent, useState } from 'react';
import { api, fieldError } from '../api.js';
import { t } from '../texts.js';
import { ErrorNotice } from '../ui/Notice.js';

/** Sets a new password with the code that an administrator has handed over. */
export function ResetPassword() {
  const [email, setEmail] = useState('');
  const [code, setCode] = useState('');
  const [newPassword, setNewPassword] = useState('');
  const [done, setDone] = useState(false);
  const [error, setError] = useState<unknown>(null);
  const submit = async (event: FormEvent) => {
    event.preventDefault();
    setError(null);
    try {
      await api.setPassword({ body: { email, code, newPassword } });
      setDone(true);
    } catch (failure) {
      setError(failure);
    } finally {
      setNewPassword('');
    }
  };
  if (done)
    return (
      <Alert color="green" role="status">
        {t.signIn.resetDone}
      </Alert>
    );
  return (
    <form onSubmit={(e) => void submit(e)}>
      <Stack>
        <TextInput
          label={t.signIn.email}
          type="email"
          autoComplete="username"
          required
          value={email}
          onChange={(e) => setEmail(e.currentTarget.value)}
        />
        <TextInput
          label={t.signIn.resetCode}
          autoComplete="one-time-code"
          required
          value={code}
          onChange={(e) => setCode(e.currentTarget.value)}
        />
        <PasswordInput
          label={t.signIn.newPassword}
          autoComplete="new-password"
          required
          value={newPassword}
          onChange={(e) => setNewPassword(e.currentTarget.value)}
          error={fieldError(error, 'newPassword')}
        />
        {error !== null && <ErrorNotice error={error} />}
        <Button type="submit">{t.signIn.reset}</Button>
      </Stack>
    </form>
  );
}
