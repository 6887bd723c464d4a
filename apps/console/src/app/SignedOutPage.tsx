import { Paper, PasswordInput, Text, TextInput, Title } from '@mantine/core';
import type { ReactNode } from 'react';
import { fieldError } from '../api.js';
import { t } from '../texts.js';

/** What people see who are not signed in: one panel on paper. */
export function SignedOutPage({
  title,
  lead,
  children,
  below,
}: {
  title: string;
  lead: string;
  children: ReactNode;
  below: ReactNode;
}) {
  return (
    <main className="signed-out">
      <div style={{ textAlign: 'center' }}>
        <img src="/favicon.svg" width={44} height={44} alt="" />
        <Title order={1} size="h2" mt="sm">
          {title}
        </Title>
        <Text c="dimmed">{lead}</Text>
      </div>
      <Paper>{children}</Paper>
      <Text size="sm" ta="center" component="div">
        {below}
      </Text>
    </main>
  );
}

interface Field {
  value: string;
  onChange(value: string): void;
}

export function EmailField({ value, onChange }: Field) {
  return (
    <TextInput
      label={t.signIn.email}
      type="email"
      autoComplete="username"
      required
      value={value}
      onChange={(e) => onChange(e.currentTarget.value)}
    />
  );
}

export function CurrentPasswordField({ value, onChange, label = t.account.current }: Field & { label?: string }) {
  return (
    <PasswordInput
      label={label}
      autoComplete="current-password"
      required
      value={value}
      onChange={(e) => onChange(e.currentTarget.value)}
    />
  );
}

export function NewPasswordField({ value, onChange, error }: Field & { error: unknown }) {
  return (
    <PasswordInput
      label={t.signIn.newPassword}
      description={t.signIn.newPasswordHint}
      autoComplete="new-password"
      required
      minLength={12}
      maxLength={200}
      value={value}
      onChange={(e) => onChange(e.currentTarget.value)}
      error={fieldError(error, 'newPassword')}
    />
  );
}

/** A one-time code of an authenticator app, or a recovery code. */
export function CodeField({ value, onChange, autoFocus = false }: Field & { autoFocus?: boolean }) {
  return (
    <TextInput
      label={t.signIn.code}
      description={t.signIn.codeHint}
      autoComplete="one-time-code"
      required
      maxLength={30}
      autoFocus={autoFocus}
      value={value}
      onChange={(e) => onChange(e.currentTarget.value.trim())}
    />
  );
}
