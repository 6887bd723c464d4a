import { ActionIcon, Button, CopyButton as MantineCopy } from '@mantine/core';
import { IconCheck, IconCopy } from '@tabler/icons-react';
import { t } from '../texts.js';
import { hint } from './Hints.js';

export function CopyIcon({ value, label = t.actions.copy }: { value: string; label?: string }) {
  return (
    <MantineCopy value={value}>
      {({ copied, copy }) => (
        <ActionIcon
          variant="subtle"
          color={copied ? 'green' : 'gray'}
          onClick={copy}
          aria-label={copied ? t.actions.copied : label}
          {...hint(label)}
        >
          {copied ? <IconCheck size={16} /> : <IconCopy size={16} />}
        </ActionIcon>
      )}
    </MantineCopy>
  );
}

export function CopyButton({ value, label = t.actions.copy }: { value: string; label?: string }) {
  return (
    <MantineCopy value={value}>
      {({ copied, copy }) => (
        <Button
          onClick={copy}
          color={copied ? 'green' : undefined}
          leftSection={copied ? <IconCheck size={16} /> : <IconCopy size={16} />}
        >
          {copied ? t.actions.copied : label}
        </Button>
      )}
    </MantineCopy>
  );
}

/** A block of code with its copy button; what is copied may differ from what is shown (a masked secret). */
export function CodeBlock({ text, label, copies = text }: { text: string; label: string; copies?: string }) {
  return (
    <div style={{ position: 'relative' }}>
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: a block that scrolls must be reachable by keyboard */}
      <section className="code" tabIndex={0} aria-label={label}>
        <pre>{text}</pre>
      </section>
      <div style={{ position: 'absolute', top: 6, right: 6 }}>
        <CopyIcon value={copies} label={`${t.actions.copy}: ${label}`} />
      </div>
    </div>
  );
}

/** A label as the value of a tab, which becomes part of ids: those hold no spaces. */
export function tabOf(label: string): string {
  return label.toLowerCase().replaceAll(' ', '-');
}
