import { Alert, Button, Checkbox, Group, Stack, Tabs, Title } from '@mantine/core';
import { IconAlertTriangle, IconEye, IconEyeOff } from '@tabler/icons-react';
import { useEffect, useState } from 'react';
import { t } from '../texts.js';
import { CodeBlock, CopyButton, tabOf } from '../ui/Copy.js';
import { snippetsFor } from './snippets.js';

/** A secret on its one showing: masked until asked for, guarded against leaving, gone with the component. */
export function SecretOnce({ secret, onDone }: { secret: string; onDone(): void }) {
  const [revealed, setRevealed] = useState(false);
  const [stored, setStored] = useState(false);
  useEffect(() => {
    const guard = (event: BeforeUnloadEvent) => event.preventDefault();
    const hash = window.location.hash;
    const stay = () => {
      if (window.location.hash !== hash && !window.confirm(t.once.leave)) window.location.hash = hash;
    };
    window.addEventListener('beforeunload', guard);
    window.addEventListener('hashchange', stay, { capture: true });
    return () => {
      window.removeEventListener('beforeunload', guard);
      window.removeEventListener('hashchange', stay, { capture: true });
    };
  }, []);
  const masked = `${secret.slice(0, 11)}${'•'.repeat(secret.length - 11)}`;
  const snippets = snippetsFor(window.location.origin, revealed ? secret : masked);
  const copies = snippetsFor(window.location.origin, secret);
  return (
    <Stack>
      <Alert color="yellow" icon={<IconAlertTriangle size={20} aria-hidden />}>
        {t.once.lead}
      </Alert>
      <div className="secret" data-testid="secret">
        {revealed ? secret : masked}
      </div>
      <Group>
        <CopyButton value={secret} />
        <Button
          variant="default"
          leftSection={revealed ? <IconEyeOff size={16} /> : <IconEye size={16} />}
          onClick={() => setRevealed((r) => !r)}
        >
          {revealed ? t.actions.hide : t.actions.reveal}
        </Button>
      </Group>
      <Title order={2} size="h5" mt="xs">
        {t.once.snippets}
      </Title>
      <Tabs defaultValue="curl">
        <Tabs.List>
          {snippets.map(({ label }) => (
            <Tabs.Tab key={label} value={tabOf(label)}>
              {label}
            </Tabs.Tab>
          ))}
        </Tabs.List>
        {snippets.map(({ label, text }, index) => (
          <Tabs.Panel key={label} value={tabOf(label)} pt="sm">
            <CodeBlock text={text} copies={copies[index]?.text ?? text} label={label} />
          </Tabs.Panel>
        ))}
      </Tabs>
      <Group justify="space-between">
        <Checkbox label={t.once.stored} checked={stored} onChange={(e) => setStored(e.currentTarget.checked)} />
        <Button disabled={!stored} onClick={onDone}>
          {t.actions.done}
        </Button>
      </Group>
    </Stack>
  );
}
