import type { Token, TokenEffect } from '@latchkey/contracts';
import { Anchor, Badge, Button, Center, Group, Loader, Paper, Stack, Table, Text, Title } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { type ReactNode, useState } from 'react';
import { api, changed } from '../api.js';
import { go } from '../app/router.js';
import { t } from '../texts.js';
import { CopyIcon } from '../ui/Copy.js';
import { ErrorNotice } from '../ui/Notice.js';
import { Page, ScrollX } from '../ui/Page.js';
import { Time } from '../ui/Time.js';
import { EditDialog } from './EditDialog.js';
import { EffectView, Receipt } from './Receipt.js';
import { RevokeDialog } from './RevokeDialog.js';
import { RotateDialog } from './RotateDialog.js';
import { StatusBadge, whyStatus } from './status.js';
import type { TokenAction } from './TokenTable.js';
import { UsageChart } from './UsageChart.js';

function Section({ title, children }: { title: string; children: ReactNode }) {
  return (
    <Paper withBorder p="md" radius="md" component="section">
      <Title order={2} size="h5" mb="sm">
        {title}
      </Title>
      {children}
    </Paper>
  );
}

function Fact({ label, children }: { label: string; children: ReactNode }) {
  return (
    <div>
      <Text size="xs" c="dimmed">
        {label}
      </Text>
      <div style={{ overflowWrap: 'anywhere' }}>{children}</div>
    </div>
  );
}

const link = (id: string) => <Anchor href={`#/api-tokens/${id}`} className="mono">{`${id.slice(0, 8)}…`}</Anchor>;

function Settings({ token }: { token: Token }) {
  return (
    <div className="facts">
      <Fact label={t.tokens.columns.owner}>
        {token.owner.name}{' '}
        <Badge variant="light" color="gray" tt="none">
          {token.owner.type === 'user' ? t.tokens.personal : t.tokens.project}
        </Badge>
      </Fact>
      <Fact label={t.detail.createdBy}>
        {token.createdBy.name}, <Time iso={token.createdAt} />
      </Fact>
      <Fact label={t.tokens.columns.expires}>{token.expiresAt ? <Time iso={token.expiresAt} /> : t.tokens.never}</Fact>
      <Fact label={t.tokens.columns.scopes}>
        {token.scopes.length
          ? token.scopes.map((s) => (
              <Badge key={s} variant="light" color="gray" tt="none" mr={4} className="mono">
                {s}
              </Badge>
            ))
          : t.tokens.noScopes}
      </Fact>
      <Fact label={t.detail.addresses}>
        {token.allowedIps.length ? <span className="mono">{token.allowedIps.join(', ')}</span> : t.detail.anyAddress}
      </Fact>
      <Fact label={t.detail.rate}>
        {token.rateLimit ? `${token.rateLimit.limit} / ${token.rateLimit.windowSeconds} s` : t.detail.noLimit}
      </Fact>
      <Fact label={t.detail.id}>
        <span className="mono">{token.id}</span> <CopyIcon value={token.id} />
      </Fact>
      <Fact label={t.tokens.columns.lastUsed}>
        {token.lastUsedAt ? (
          <>
            <Time iso={token.lastUsedAt} /> <span className="mono muted">{token.lastUsedIp}</span>
          </>
        ) : (
          t.tokens.neverUsed
        )}
      </Fact>
      {token.rotatedFrom && <Fact label={t.detail.rotatedFrom}>{link(token.rotatedFrom)}</Fact>}
      {token.rotatedTo && <Fact label={t.detail.rotatedTo}>{link(token.rotatedTo)}</Fact>}
      {token.parentId && <Fact label={t.detail.parent}>{link(token.parentId)}</Fact>}
      {Object.entries(token.metadata).map(([name, value]) => (
        <Fact key={name} label={name}>
          {value}
        </Fact>
      ))}
    </div>
  );
}

export function TokenPage({ id }: { id: string }) {
  const [dialog, setDialog] = useState<TokenAction | null>(null);
  const [effect, setEffect] = useState<TokenEffect | null>(null);
  const [failure, setFailure] = useState<unknown>(null);
  const [from] = useState(() => new Date(Date.now() - 72 * 3_600_000).toISOString());
  const token = useQuery({
    queryKey: ['getToken', id],
    queryFn: () => api.getToken({ params: { id } }),
    refetchInterval: 10_000,
  });
  const usage = useQuery({
    queryKey: ['tokenUsage', id, 'detail', from],
    queryFn: () => api.tokenUsage({ params: { id }, query: { from } }),
    refetchInterval: 15_000,
  });
  const trail = useQuery({
    queryKey: ['listAudit', 'token', id],
    queryFn: () => api.listAudit({ query: { tokenId: id, limit: 50 } }),
  });
  if (token.error) return <ErrorNotice error={token.error} retry={() => void token.refetch()} />;
  if (!token.data) {
    return (
      <Center mih={200}>
        <Loader aria-label={t.status.loading} />
      </Center>
    );
  }
  const it = token.data;
  const ended = it.status === 'revoked' || it.status === 'expired';
  const toggle = async () => {
    setFailure(null);
    try {
      setEffect(await api.patchToken({ params: { id }, body: { disabled: it.status !== 'disabled' } }));
      changed('getToken', 'listTokens', 'listAudit');
    } catch (error) {
      setFailure(error);
    }
  };
  return (
    <Page
      title={it.name}
      lead={it.description}
      actions={
        !ended && (
          <>
            <Button variant="default" onClick={() => setDialog('edit')}>
              {t.detail.edit}
            </Button>
            <Button variant="default" disabled={it.rotatedTo !== null} onClick={() => setDialog('rotate')}>
              {t.detail.rotate}
            </Button>
            <Button variant="default" onClick={() => void toggle()}>
              {it.status === 'disabled' ? t.detail.enable : t.detail.disable}
            </Button>
            <Button color="red" onClick={() => setDialog('revoke')}>
              {t.detail.revoke}
            </Button>
          </>
        )
      }
    >
      <Group gap="sm">
        <StatusBadge token={it} />
        <Text size="sm" c="dimmed">
          <span className="mono">{it.start}…</span> · {whyStatus(it)}
        </Text>
      </Group>
      {failure !== null && <ErrorNotice error={failure} />}
      {effect && <EffectView effect={effect} refused={effect.token.status !== 'active'} />}
      <Section title={t.detail.settings}>
        <Settings token={it} />
      </Section>
      <Section title={t.detail.usage}>
        {usage.error ? <ErrorNotice error={usage.error} /> : usage.data && <UsageChart usage={usage.data} />}
      </Section>
      <Section title={t.detail.callers}>
        {usage.data && usage.data.callers.length > 0 ? (
          <ScrollX label={t.detail.callers}>
            <Table>
              <Table.Tbody>
                {usage.data.callers.map((caller) => (
                  <Table.Tr key={`${caller.ip} ${caller.userAgent}`}>
                    <Table.Td className="mono">{caller.ip}</Table.Td>
                    <Table.Td>{caller.userAgent || '–'}</Table.Td>
                    <Table.Td>{caller.count}×</Table.Td>
                    <Table.Td>
                      <Time iso={caller.lastSeen} />
                    </Table.Td>
                  </Table.Tr>
                ))}
              </Table.Tbody>
            </Table>
          </ScrollX>
        ) : (
          <Text c="dimmed">{t.detail.noCallers}</Text>
        )}
      </Section>
      {it.receipt && (
        <Section title={t.detail.receipt}>
          <Receipt receipt={it.receipt} refused={it.status === 'revoked'} />
        </Section>
      )}
      <Section title={t.detail.trail}>
        {trail.data && trail.data.items.length > 0 ? (
          <Stack gap={6}>
            {trail.data.items.map((event) => (
              <Text size="sm" key={event.id}>
                <span className="mono">{event.action}</span> · {event.actor.name} · <Time iso={event.at} />
              </Text>
            ))}
          </Stack>
        ) : (
          <Text c="dimmed">{t.detail.noTrail}</Text>
        )}
      </Section>
      {dialog === 'revoke' && <RevokeDialog tokens={[it]} onClose={() => setDialog(null)} />}
      {dialog === 'rotate' && (
        <RotateDialog token={it} onClose={() => setDialog(null)} onOpen={(next) => go(`/api-tokens/${next}`)} />
      )}
      {dialog === 'edit' && <EditDialog token={it} onClose={() => setDialog(null)} />}
    </Page>
  );
}
