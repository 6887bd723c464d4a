import { Button, Code, Group, Stack, Text } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import encodeQR from 'qr';
import { useMemo, useRef, useState } from 'react';
import { api, changed } from '../api.js';
import { CodeField, CurrentPasswordField } from '../app/SignedOutPage.js';
import { t } from '../texts.js';
import { CopyButton, CopyIcon } from '../ui/Copy.js';
import { useSubmit } from '../ui/form.js';
import { ErrorNotice } from '../ui/Notice.js';
import { Section } from '../ui/Page.js';

const QUIET_ZONE = 4;

/** A QR code (ISO/IEC 18004) as one path, dark on white in either scheme, as readers need it. */
function QrCode({ text, label }: { text: string; label: string }) {
  const { size, path } = useMemo(() => {
    const rows = encodeQR(text, 'raw', { border: QUIET_ZONE, ecc: 'medium' });
    const squares = rows.flatMap((row, y) => row.map((dark, x) => (dark ? `M${x} ${y}h1v1h-1z` : '')));
    return { size: rows.length, path: squares.join('') };
  }, [text]);
  return (
    <svg className="qr" viewBox={`0 0 ${size} ${size}`} role="img" aria-label={label} shapeRendering="crispEdges">
      <rect width={size} height={size} fill="#fff" />
      <path d={path} fill="#000" />
    </svg>
  );
}

/** Shown once, as the answer told them; gone with this component. */
function RecoveryCodes({ codes, onStored }: { codes: readonly string[]; onStored(): void }) {
  return (
    <Section title={t.account.recovery} lead={t.account.recoveryLead}>
      <ul className="codes mono" data-testid="recovery-codes">
        {codes.map((code) => (
          <li key={code}>{code}</li>
        ))}
      </ul>
      <Group gap="xs" mt="md">
        <CopyButton value={codes.join('\n')} label={t.account.recoveryCopy} />
        <Button variant="default" onClick={onStored}>
          {t.account.recoveryStored}
        </Button>
      </Group>
    </Section>
  );
}

/** Turns one-time codes of an authenticator app (RFC 6238) on and off. */
export function SecondFactor() {
  const state = useQuery({ queryKey: ['getSecondFactor'], queryFn: () => api.getSecondFactor() });
  const [password, setPassword] = useState('');
  const [code, setCode] = useState('');
  // Shown once; gone with this component, or when it is turned on.
  const [started, setStarted] = useState<{ secret: string; uri: string } | null>(null);
  const [recoveryCodes, setRecoveryCodes] = useState<readonly string[] | null>(null);
  const on = state.data?.enabled ?? false;
  const renewing = useRef(false);
  const { onSubmit, submit, working, error } = useSubmit(async () => {
    if (renewing.current) {
      renewing.current = false;
      setRecoveryCodes((await api.makeRecoveryCodes({ body: { password, code } })).recoveryCodes);
      setPassword('');
    } else if (on) {
      await api.removeSecondFactor({ body: { password, code } });
      setPassword('');
    } else if (started) {
      setRecoveryCodes((await api.confirmSecondFactor({ body: { code } })).recoveryCodes);
      setStarted(null);
    } else {
      setStarted(await api.startSecondFactor({ body: { password } }));
      setPassword('');
    }
    setCode('');
    changed('getSecondFactor');
  });
  if (recoveryCodes) return <RecoveryCodes codes={recoveryCodes} onStored={() => setRecoveryCodes(null)} />;
  return (
    <Section title={t.account.factor} lead={on ? t.account.factorOn : t.account.factorOff}>
      <form onSubmit={onSubmit}>
        <Stack maw={460}>
          {started && (
            <>
              <Text size="sm">{t.account.factorScan}</Text>
              <Group align="flex-start" gap="lg">
                <QrCode text={started.uri} label={t.account.factorQr} />
                <Stack gap={4} flex="1 1 180px">
                  <Text size="sm" fw={600}>
                    {t.account.factorSecret}
                  </Text>
                  <Group gap={4} wrap="nowrap" align="flex-start">
                    <Code className="anywhere">{started.secret}</Code>
                    <CopyIcon value={started.secret} label={`${t.actions.copy}: ${t.account.factorSecret}`} />
                  </Group>
                </Stack>
              </Group>
            </>
          )}
          {on && (
            <Text size="sm" className={(state.data?.recoveryCodesLeft ?? 0) < 3 ? 'soon' : undefined}>
              {t.account.recoveryLeft(state.data?.recoveryCodesLeft ?? 0)}
            </Text>
          )}
          {!started && <CurrentPasswordField value={password} onChange={setPassword} />}
          {(started || on) && <CodeField value={code} onChange={setCode} />}
          {state.error && <ErrorNotice error={state.error} />}
          {error !== null && <ErrorNotice error={error} />}
          <Group gap="xs">
            <Button type="submit" loading={working} color={on ? 'red' : undefined} variant={on ? 'light' : 'filled'}>
              {on ? t.account.factorRemove : started ? t.account.factorConfirm : t.account.factorStart}
            </Button>
            {on && (
              <Button
                variant="default"
                loading={working}
                disabled={password === '' || code === ''}
                onClick={() => {
                  renewing.current = true;
                  void submit();
                }}
              >
                {t.account.recoveryNew}
              </Button>
            )}
            {started && (
              <Button variant="default" onClick={() => setStarted(null)}>
                {t.actions.cancel}
              </Button>
            )}
          </Group>
        </Stack>
      </form>
    </Section>
  );
}
