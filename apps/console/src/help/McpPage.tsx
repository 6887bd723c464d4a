import { Alert, Button, Loader, Paper, Stack, Table, Tabs, Text } from '@mantine/core';
import { IconCircleCheck } from '@tabler/icons-react';
import { useQuery } from '@tanstack/react-query';
import { useState } from 'react';
import { api } from '../api.js';
import { t } from '../texts.js';
import { CodeBlock, CopyIcon, tabOf } from '../ui/Copy.js';
import { Page, ScrollX } from '../ui/Page.js';

const HEADER = 'Authorization: Bearer <token>';

/** Configurations that read the token from the environment, so that no file holds it. */
function configurations(endpoint: string): { label: string; text: string }[] {
  const json = (value: unknown) => JSON.stringify(value, null, 2);
  const asVariable = (name: string) => `Bearer \${${name}}`;
  return [
    {
      label: 'Claude Code',
      text: `export LATCHKEY_TOKEN='…'\nclaude mcp add --transport http latchkey ${endpoint} \\\n  --header "Authorization: Bearer \${LATCHKEY_TOKEN}"`,
    },
    {
      label: 'Claude Desktop',
      text: json({
        mcpServers: {
          latchkey: {
            command: 'npx',
            args: [
              '-y',
              'mcp-remote',
              endpoint,
              '--transport',
              'http-only',
              '--header',
              `Authorization:${asVariable('LATCHKEY_TOKEN').replace(' ', `\${SPACE}`)}`,
            ],
            env: { SPACE: ' ' },
          },
        },
      }),
    },
    {
      label: 'Cursor',
      text: json({
        mcpServers: { latchkey: { url: endpoint, headers: { Authorization: asVariable('env:LATCHKEY_TOKEN') } } },
      }),
    },
    {
      label: 'VS Code',
      text: json({
        inputs: [{ type: 'promptString', id: 'latchkey-token', description: 'Latchkey token', password: true }],
        servers: {
          latchkey: { type: 'http', url: endpoint, headers: { Authorization: asVariable('input:latchkey-token') } },
        },
      }),
    },
    { label: 'Codex', text: `[mcp_servers.latchkey]\nurl = "${endpoint}"\nbearer_token_env_var = "LATCHKEY_TOKEN"` },
  ];
}

/** Ticks when the newest token of the reader makes its first call. */
function FirstCall() {
  const [since] = useState(() => Date.now());
  const mine = useQuery({
    queryKey: ['listTokens', 'newest'],
    queryFn: () => api.listTokens({ query: { owner: 'me', status: 'active', limit: 1 } }),
    refetchInterval: 3_000,
  });
  const newest = mine.data?.items[0];
  if (!newest) return null;
  if (newest.lastUsedAt && Date.parse(newest.createdAt) > since - 3_600_000) {
    return (
      <Alert color="green" icon={<IconCircleCheck size={20} />} role="status">
        {t.mcp.arrived(newest.name)}
      </Alert>
    );
  }
  return (
    <Alert color="gray" icon={<Loader size={16} />} role="status">
      {t.mcp.waiting}
    </Alert>
  );
}

export function McpPage() {
  const endpoint = `${window.location.origin}/mcp`;
  const rows: [string, string][] = [
    [t.mcp.endpoint, endpoint],
    [t.mcp.transport, t.mcp.transportValue],
    [t.mcp.header, HEADER],
  ];
  const examples = configurations(endpoint);
  return (
    <Page
      title={t.mcp.title}
      lead={t.mcp.lead}
      narrow
      actions={
        <Button component="a" href="#/api-tokens/new?name=AI%20assistant&scopes=tokens:read">
          {t.mcp.create}
        </Button>
      }
    >
      <Paper withBorder radius="md" p="md">
        <ScrollX label={t.mcp.endpoint}>
          <Table>
            <Table.Tbody>
              {rows.map(([label, value]) => (
                <Table.Tr key={label}>
                  <Table.Th scope="row">{label}</Table.Th>
                  <Table.Td className="mono">{value}</Table.Td>
                  <Table.Td>
                    <CopyIcon value={value} label={`${t.actions.copy}: ${label}`} />
                  </Table.Td>
                </Table.Tr>
              ))}
            </Table.Tbody>
          </Table>
        </ScrollX>
      </Paper>
      <FirstCall />
      <Stack gap="xs">
        <Text>{t.mcp.variable}</Text>
        <Tabs defaultValue={tabOf(examples[0]?.label ?? '')}>
          <Tabs.List>
            {examples.map(({ label }) => (
              <Tabs.Tab key={label} value={tabOf(label)}>
                {label}
              </Tabs.Tab>
            ))}
          </Tabs.List>
          {examples.map(({ label, text }) => (
            <Tabs.Panel key={label} value={tabOf(label)} pt="sm">
              <CodeBlock text={text} label={label} />
            </Tabs.Panel>
          ))}
        </Tabs>
        <Text size="sm" c="dimmed">
          {t.mcp.noHeader}
        </Text>
      </Stack>
    </Page>
  );
}
