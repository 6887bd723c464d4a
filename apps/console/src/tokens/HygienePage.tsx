import type { Token, Usage } from '@latchkey/contracts';
import { Anchor, Button, Group, Text } from '@mantine/core';
import { IconShieldCheck } from '@tabler/icons-react';
import { useQuery } from '@tanstack/react-query';
import { useState } from 'react';
import { api } from '../api.js';
import { go } from '../app/router.js';
import { t } from '../texts.js';
import { ErrorNotice } from '../ui/Notice.js';
import { Empty, Loading, Page, Section } from '../ui/Page.js';
import { Time } from '../ui/Time.js';
import { RevokeDialog } from './RevokeDialog.js';
import { RotateDialog } from './RotateDialog.js';
import { Expiry } from './status.js';

const DAY_MS = 86_400_000;
const READ_MAX = 2_000;
const SHOWN_MAX = 50;
/** Whose callers are looked at: the tokens used last. */
const CALLERS_READ_MAX = 60;
const NEW_MS = 7 * DAY_MS;

interface Findings {
  tokens: Token[];
  more: boolean;
  /** By token: the address that is new, and since when. */
  newcomers: Map<string, { ip: string; firstSeen: string }>;
}

/** An address that appeared in the last week, on a token that had been used from another before. */
function newcomerOf({ callers }: Usage, nowMs: number) {
  const since = new Map<string, string>();
  for (const { ip, firstSeen } of callers) {
    const known = since.get(ip);
    if (!known || firstSeen < known) since.set(ip, firstSeen);
  }
  const addresses = [...since].map(([ip, firstSeen]) => ({ ip, firstSeen }));
  addresses.sort((a, b) => (a.firstSeen < b.firstSeen ? 1 : -1));
  const [newest] = addresses;
  return addresses.length > 1 && newest && Date.parse(newest.firstSeen) > nowMs - NEW_MS ? newest : undefined;
}

async function look(nowMs: number): Promise<Findings> {
  const tokens: Token[] = [];
  let more = false;
  for await (const token of api.each('listTokens', { query: { limit: 100 } })) {
    if (tokens.length === READ_MAX) {
      more = true;
      break;
    }
    if (token.status === 'active' || token.status === 'disabled') tokens.push(token);
  }
  const used = tokens
    .filter(({ status, lastUsedAt }) => status === 'active' && lastUsedAt && Date.parse(lastUsedAt) > nowMs - NEW_MS)
    .sort((a, b) => ((a.lastUsedAt ?? '') < (b.lastUsedAt ?? '') ? 1 : -1))
    .slice(0, CALLERS_READ_MAX);
  const newcomers: Findings['newcomers'] = new Map();
  await Promise.all(
    used.map(async ({ id }) => {
      const newcomer = newcomerOf(await api.tokenUsage({ params: { id } }), nowMs);
      if (newcomer) newcomers.set(id, newcomer);
    }),
  );
  return { tokens, more, newcomers };
}

function groupsOf({ tokens, newcomers }: Findings, nowMs: number) {
  const idle = (token: Token) => Date.parse(token.lastUsedAt ?? token.createdAt) < nowMs - 90 * DAY_MS;
  const soon = (token: Token) => token.expiresAt !== null && Date.parse(token.expiresAt) < nowMs + 30 * DAY_MS;
  const active = tokens.filter((token) => token.status === 'active');
  return [
    { name: 'addresses', action: 'revoke', tokens: active.filter(({ id }) => newcomers.has(id)) },
    { name: 'soon', action: 'rotate', tokens: active.filter((token) => soon(token) && token.rotatedTo === null) },
    { name: 'never', action: 'rotate', tokens: active.filter((token) => token.expiresAt === null) },
    { name: 'idle', action: 'revoke', tokens: active.filter(idle) },
    { name: 'disabled', action: 'revoke', tokens: tokens.filter((token) => token.status === 'disabled') },
  ] as const;
}

/** Tokens that deserve a look, each with what to do about it. */
export function HygienePage() {
  const [nowMs] = useState(() => Date.now());
  const [dialog, setDialog] = useState<{ action: 'rotate' | 'revoke'; token: Token } | null>(null);
  const list = useQuery({ queryKey: ['listTokens', 'hygiene'], queryFn: () => look(nowMs), staleTime: 30_000 });
  const groups = list.data ? groupsOf(list.data, nowMs) : [];
  const clean = list.data && groups.every(({ tokens }) => tokens.length === 0);
  const why = (name: (typeof groups)[number]['name'], token: Token) => {
    const newcomer = list.data?.newcomers.get(token.id);
    if (name === 'addresses' && newcomer) {
      return (
        <>
          <span className="mono">{newcomer.ip}</span>, <Time iso={newcomer.firstSeen} />
        </>
      );
    }
    if (name === 'soon') return <Expiry token={token} />;
    return token.lastUsedAt ? (
      <>
        {t.hygiene.used} <Time iso={token.lastUsedAt} />
      </>
    ) : (
      t.tokens.neverUsed
    );
  };
  return (
    <Page title={t.hygiene.title} lead={t.hygiene.lead}>
      {list.error && <ErrorNotice error={list.error} retry={() => void list.refetch()} />}
      {list.isPending && <Loading />}
      {list.data?.more && <Text c="dimmed">{t.hygiene.more(READ_MAX)}</Text>}
      {clean && (
        <Empty icon={<IconShieldCheck size={36} stroke={1.4} />} title={t.hygiene.clean} text={t.hygiene.cleanText} />
      )}
      {groups
        .filter(({ tokens }) => tokens.length > 0)
        .map(({ name, action, tokens }) => (
          <Section
            key={name}
            title={t.hygiene[name].title}
            lead={t.hygiene[name].lead}
            aside={<Text c="dimmed">{tokens.length}</Text>}
          >
            <ul className="lines">
              {tokens.slice(0, SHOWN_MAX).map((token) => (
                <li key={token.id}>
                  <div className="grow">
                    <Anchor
                      href={`#/api-tokens/${token.id}`}
                      fw={600}
                      size="sm"
                      c="var(--mantine-color-text)"
                      className="anywhere"
                    >
                      {token.name}
                    </Anchor>
                    <Text size="xs" c="dimmed">
                      {token.owner.name}
                    </Text>
                  </div>
                  <Group gap="md">
                    <Text size="sm" c="dimmed">
                      {why(name, token)}
                    </Text>
                    <Button
                      size="xs"
                      variant={action === 'revoke' ? 'light' : 'default'}
                      color={action === 'revoke' ? 'red' : undefined}
                      aria-label={`${t.detail[action]}: ${token.name}`}
                      onClick={() => setDialog({ action, token })}
                    >
                      {t.detail[action]}
                    </Button>
                  </Group>
                </li>
              ))}
            </ul>
            {tokens.length > SHOWN_MAX && (
              <Text size="sm" c="dimmed">
                {t.hygiene.further(tokens.length - SHOWN_MAX)}
              </Text>
            )}
          </Section>
        ))}
      {clean === false && groups.some(({ tokens }) => tokens.length === 0) && (
        <Text size="sm" c="dimmed">
          {t.hygiene.rest(groups.filter(({ tokens }) => tokens.length === 0).map(({ name }) => t.hygiene[name].title))}
        </Text>
      )}
      {dialog?.action === 'revoke' && <RevokeDialog tokens={[dialog.token]} onClose={() => setDialog(null)} />}
      {dialog?.action === 'rotate' && (
        <RotateDialog token={dialog.token} onClose={() => setDialog(null)} onOpen={(id) => go(`/api-tokens/${id}`)} />
      )}
    </Page>
  );
}
