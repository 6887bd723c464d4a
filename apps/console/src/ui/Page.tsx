import { Box, Center, Group, Loader, Paper, Stack, Text, Title } from '@mantine/core';
import { type ReactNode, useEffect } from 'react';
import { t } from '../texts.js';

/** A page's head and body; also names the browser's tab. */
export function Page(props: {
  title: string;
  lead?: ReactNode;
  /** Above the title: the way back up. */
  up?: ReactNode;
  actions?: ReactNode;
  narrow?: boolean;
  children: ReactNode;
}) {
  const { title, lead, up, actions, narrow, children } = props;
  useEffect(() => {
    document.title = `${title} · ${t.product}`;
  }, [title]);
  return (
    <Stack className={narrow ? 'page-narrow' : 'page'} gap="lg">
      <Group justify="space-between" align="flex-end" wrap="wrap" gap="md">
        <Box flex="1 1 300px" miw={0}>
          {up && (
            <Text size="sm" mb={4} component="div">
              {up}
            </Text>
          )}
          <Title order={1} size="h2" className="anywhere">
            {title}
          </Title>
          {lead && (
            <Text c="dimmed" mt={4} maw={720} component="div" className="anywhere">
              {lead}
            </Text>
          )}
        </Box>
        {actions && (
          <Group gap="xs" className="page-actions">
            {actions}
          </Group>
        )}
      </Group>
      {children}
    </Stack>
  );
}

/** A part of a page with a heading of its own. */
export function Section(props: { title: string; lead?: string; aside?: ReactNode; children: ReactNode }) {
  const { title, lead, aside, children } = props;
  return (
    <Paper component="section">
      <Group justify="space-between" mb={lead ? 4 : 'sm'} wrap="nowrap">
        <Title order={2} size="h5">
          {title}
        </Title>
        {aside}
      </Group>
      {lead && (
        <Text size="sm" c="dimmed" mb="md">
          {lead}
        </Text>
      )}
      {children}
    </Paper>
  );
}

/** What may be wider than the screen: scrolls sideways by itself, by keyboard too. */
export function ScrollX({ label, children }: { label: string; children: ReactNode }) {
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by keyboard
    <section className="scroll-x" tabIndex={0} aria-label={label}>
      {children}
    </section>
  );
}

/** Where there is nothing yet: what would stand here, what it is good for, and the first step. */
export function Empty(props: {
  icon: ReactNode;
  title: string;
  text: string;
  points?: readonly string[];
  action?: ReactNode;
}) {
  const { icon, title, text, points = [], action } = props;
  return (
    <div className="empty">
      {icon}
      <Title order={2} size="h4">
        {title}
      </Title>
      <Text c="dimmed" component="p" m={0}>
        {text}
      </Text>
      {points.length > 0 && (
        <ul>
          {points.map((point) => (
            <li key={point}>
              <span aria-hidden="true">→</span>
              {point}
            </li>
          ))}
        </ul>
      )}
      {action}
    </div>
  );
}

export function Loading() {
  return (
    <Center mih={200}>
      <Loader role="status" aria-label={t.status.loading} />
    </Center>
  );
}
