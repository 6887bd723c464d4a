import type { Token } from '@latchkey/contracts';
import { Anchor, Button, Group, Paper, Stack, Text, Title } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { useState } from 'react';
import { api } from '../api.js';
import { go } from '../app/router.js';
import { t } from '../texts.js';
import { ErrorNotice } from '../ui/Notice.js';
import { Page } from '../ui/Page.js';
import { RevokeDialog } from './RevokeDialog.js';
import { RotateDialog } from './RotateDialog.js';

const DAY_MS = 86_400_000;
const READ_MAX = 2_000;

async function activeTokens(): Promise<Token[]> {
  const tokens: Token[] = [];
  for await (const token of api.each('listTokens', { query: { limit: 100 } })) {
    if (token.status === 'active' || token.status === 'disabled') tokens.push(token);
    if (tokens.length >= READ_MAX) break;
  }
  return tokens;
}

function groupsOf(tokens: readonly Token[], nowMs: number) {
  const idle = (token: Token) => Date.parse(token.lastUsedAt ?? token.createdAt) < nowMs - 90 * DAY_MS;
  const soon = (token: Token) => token.expiresAt !== null && Date.parse(token.expiresAt) < nowMs + 30 * DAY_MS;
  const active = tokens.filter((token) => token.status === 'active');
  return [
    { title: t.hygiene.soon, action: 'rotate' as const, tokens: active.filter(soon) },
    { title: t.hygiene.never, action: 'rotate' as const, tokens: active.filter((token) => token.expiresAt === null) },
    { title: t.hygiene.idle, action: 'revoke' as const, tokens: active.filter(idle) },
    {
      title: t.hygiene.disabled,
      action: 'revoke' as const,
      tokens: tokens.filter((token) => token.status === 'disabled'),
    },
  ];
}

/** Tokens that deserve a look, each with what to do about it. */
export function HygienePage() {
  const [nowMs] = useState(() => Date.now());
  const [dialog, setDialog] = useState<{ action: 'rotate' | 'revoke'; token: Token } | null>(null);
  const list = useQuery({ queryKey: ['listTokens', 'hygiene'], queryFn: activeTokens, staleTime: 30_000 });
  return (
    <Page title={t.hygiene.title} lead={t.hygiene.lead}>
      {list.error && <ErrorNotice error={list.error} retry={() => void list.refetch()} />}
      {list.data &&
        groupsOf(list.data, nowMs).map((group) => (
          <Paper withBorder radius="md" p="md" key={group.title}>
            <Group justify="space-between" mb="xs">
              <Title order={2} size="h5">
                {group.title}
              </Title>
              <Text c="dimmed">{group.tokens.length}</Text>
            </Group>
            {group.tokens.length === 0 && (
              <Text size="sm" c="dimmed">
                {t.hygiene.clean}
              </Text>
            )}
            <Stack gap="xs">
              {group.tokens.slice(0, 50).map((token) => (
                <Group key={token.id} justify="space-between" wrap="nowrap">
                  <Anchor href={`#/api-tokens/${token.id}`} className="ellipsis">
                    {token.name}
                  </Anchor>
                  <Button
                    size="compact-xs"
                    variant="light"
                    color={group.action === 'revoke' ? 'red' : undefined}
                    onClick={() => setDialog({ action: group.action, token })}
                  >
                    {t.detail[group.action]}
                  </Button>
                </Group>
              ))}
            </Stack>
          </Paper>
        ))}
      {dialog?.action === 'revoke' && <RevokeDialog tokens={[dialog.token]} onClose={() => setDialog(null)} />}
      {dialog?.action === 'rotate' && (
        <RotateDialog token={dialog.token} onClose={() => setDialog(null)} onOpen={(id) => go(`/api-tokens/${id}`)} />
      )}
    </Page>
  );
}
