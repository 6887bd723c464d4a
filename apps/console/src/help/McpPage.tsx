import { Alert, Button, Group, Loader, Stack, Tabs, Text } from '@mantine/core';
import { IconCircleCheck } from '@tabler/icons-react';
import { useQuery } from '@tanstack/react-query';
import { api } from '../api.js';
import { t } from '../texts.js';
import { CodeBlock, CopyIcon, tabOf } from '../ui/Copy.js';
import { Page, Section } from '../ui/Page.js';
import { Time } from '../ui/Time.js';

const HEADER = 'Authorization: Bearer <token>';

/** Configurations that read the token from the environment, so that no file holds it. */
function configurations(endpoint: string): { label: string; file: string; text: string }[] {
  const json = (value: unknown) => JSON.stringify(value, null, 2);
  const asVariable = (name: string) => `Bearer \${${name}}`;
  return [
    {
      label: 'Claude Code',
      file: t.mcp.files['Claude Code'],
      text: `export LATCHKEY_TOKEN='…'\nclaude mcp add --transport http latchkey ${endpoint} \\\n  --header "Authorization: Bearer \${LATCHKEY_TOKEN}"`,
    },
    {
      label: 'Claude Desktop',
      file: t.mcp.files['Claude Desktop'],
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
      file: t.mcp.files['Cursor'],
      text: json({
        mcpServers: { latchkey: { url: endpoint, headers: { Authorization: asVariable('env:LATCHKEY_TOKEN') } } },
      }),
    },
    {
      label: 'VS Code',
      file: t.mcp.files['VS Code'],
      text: json({
        inputs: [{ type: 'promptString', id: 'latchkey-token', description: 'Latchkey token', password: true }],
        servers: {
          latchkey: { type: 'http', url: endpoint, headers: { Authorization: asVariable('input:latchkey-token') } },
        },
      }),
    },
    {
      label: 'Codex',
      file: t.mcp.files.Codex,
      text: `[mcp_servers.latchkey]\nurl = "${endpoint}"\nbearer_token_env_var = "LATCHKEY_TOKEN"`,
    },
  ];
}

/** Ticks when the newest token of the reader makes its first call. */
function FirstCall() {
  const mine = useQuery({
    queryKey: ['listTokens', 'newest'],
    queryFn: () => api.listTokens({ query: { owner: 'me', status: 'active', limit: 1 } }),
    refetchInterval: ({ state }) => (state.data?.items[0]?.lastUsedAt ? 15_000 : 3_000),
  });
  if (!mine.data) return null;
  const [newest] = mine.data.items;
  if (!newest) return <Alert color="gray">{t.mcp.noToken}</Alert>;
  if (newest.lastUsedAt) {
    return (
      <Alert color="green" icon={<IconCircleCheck size={20} aria-hidden />} role="status">
        {t.mcp.arrived(newest.name)} <Time iso={newest.lastUsedAt} />
      </Alert>
    );
  }
  return (
    <Alert color="gray" icon={<Loader size={16} />} role="status">
      {t.mcp.waiting(newest.name)}
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
      <FirstCall />
      <Section title={t.mcp.where}>
        <ul className="lines">
          {rows.map(([label, value]) => (
            <li key={label}>
              <Text size="sm" c="dimmed" flex="0 0 160px">
                {label}
              </Text>
              <Group gap={4} className="grow" wrap="nowrap">
                <span className="mono anywhere">{value}</span>
                <CopyIcon value={value} label={`${t.actions.copy}: ${label}`} />
              </Group>
            </li>
          ))}
        </ul>
      </Section>
      <Section title={t.mcp.configure} lead={t.mcp.variable}>
        <Tabs defaultValue={tabOf(examples[0]?.label ?? '')}>
          <Tabs.List>
            {examples.map(({ label }) => (
              <Tabs.Tab key={label} value={tabOf(label)}>
                {label}
              </Tabs.Tab>
            ))}
          </Tabs.List>
          {examples.map(({ label, file, text }) => (
            <Tabs.Panel key={label} value={tabOf(label)} pt="md">
              <Text size="sm" c="dimmed" mb="xs">
                {file}
              </Text>
              <CodeBlock text={text} label={label} />
            </Tabs.Panel>
          ))}
        </Tabs>
      </Section>
      <Section title={t.mcp.noHeaderTitle} lead={t.mcp.noHeader}>
        <Stack gap="xs">
          <Text size="sm">{t.mcp.noHeaderBridge}</Text>
          <CodeBlock
            label={t.mcp.noHeaderTitle}
            text={`npx -y mcp-remote ${endpoint} --transport http-only --header "Authorization: Bearer $LATCHKEY_TOKEN"`}
          />
        </Stack>
      </Section>
    </Page>
  );
}
