import type { Token, TokenEffect } from '@latchkey/contracts';
import { Anchor, Badge, Button, Code, Group, Text } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { lazy, Suspense, useState } from 'react';
import { api, changedTokens } from '../api.js';
import { go } from '../app/router.js';
import { useUnsettledRestore } from '../system/restore.js';
import { t } from '../texts.js';
import { CopyIcon } from '../ui/Copy.js';
import { Fact, Facts } from '../ui/Facts.js';
import { ErrorNotice } from '../ui/Notice.js';
import { Loading, Page, Section } from '../ui/Page.js';
import { Time } from '../ui/Time.js';
import { EffectView, Receipt } from './Receipt.js';
import { Expiry, StatusBadge, whyStatus } from './status.js';
import type { TokenAction } from './TokenTable.js';
import { UsageChart } from './UsageChart.js';

const RevokeDialog = lazy(() => import('./RevokeDialog.js').then((m) => ({ default: m.RevokeDialog })));
const RotateDialog = lazy(() => import('./RotateDialog.js').then((m) => ({ default: m.RotateDialog })));
const EditDialog = lazy(() => import('./EditDialog.js').then((m) => ({ default: m.EditDialog })));

const link = (id: string) => <Anchor href={`#/api-tokens/${id}`} className="mono">{`${id.slice(0, 8)}…`}</Anchor>;

function Settings({ token }: { token: Token }) {
  return (
    <Facts>
      <Fact label={t.tokens.columns.owner}>
        {token.owner.name}{' '}
        <Badge variant="light" color="gray" tt="none">
          {token.owner.type === 'user' ? t.tokens.personal : t.tokens.project}
        </Badge>
      </Fact>
      <Fact label={t.detail.createdBy}>
        {token.createdBy.name}, <Time iso={token.createdAt} />
      </Fact>
      <Fact label={t.tokens.columns.expires}>
        <Expiry token={token} />
      </Fact>
      <Fact label={t.tokens.columns.scopes}>
        {token.scopes.length
          ? token.scopes.map((s) => (
              <Code key={s} mr={6}>
                {s}
              </Code>
            ))
          : t.tokens.noScopes}
      </Fact>
      <Fact label={t.detail.addresses}>
        {token.allowedIps.length ? <span className="mono">{token.allowedIps.join(', ')}</span> : t.detail.anyAddress}
      </Fact>
      <Fact label={t.detail.rate}>
        {token.rateLimit ? t.detail.limit(token.rateLimit.limit, token.rateLimit.windowSeconds) : t.detail.noLimit}
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
    </Facts>
  );
}

export function TokenPage({ id }: { id: string }) {
  const [dialog, setDialog] = useState<TokenAction | null>(null);
  const unsettledRestoreAt = useUnsettledRestore();
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
  if (!token.data) return <Loading />;
  const it = token.data;
  const ended = it.status === 'revoked' || it.status === 'expired';
  const toggle = async () => {
    setFailure(null);
    try {
      const answer = await api.patchToken({ params: { id }, body: { disabled: it.status !== 'disabled' } });
      changedTokens(answer.token);
      setEffect(answer);
    } catch (error) {
      setFailure(error);
    }
  };
  return (
    <Page
      title={it.name}
      up={<Anchor href="#/api-tokens">← {t.nav.tokens}</Anchor>}
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
            <Button color="red" variant="light" onClick={() => setDialog('revoke')}>
              {t.detail.revoke}
            </Button>
          </>
        )
      }
    >
      <Group gap="sm">
        <StatusBadge token={it} />
        <Text size="sm" c="dimmed">
          <span className="mono">{it.start}…</span> · {whyStatus(it, unsettledRestoreAt)}
        </Text>
      </Group>
      {failure !== null && <ErrorNotice error={failure} />}
      {effect && <EffectView effect={effect} refused={effect.token.status !== 'active'} />}
      <Section title={t.detail.settings}>
        <Settings token={it} />
      </Section>
      <Section
        title={t.detail.usage}
        aside={
          usage.data && (
            <Text size="sm" c="dimmed">
              {t.detail.total(it.usageCount)}
            </Text>
          )
        }
      >
        {usage.error ? <ErrorNotice error={usage.error} /> : usage.data && <UsageChart usage={usage.data} />}
      </Section>
      <Section title={t.detail.callers}>
        {usage.data && usage.data.callers.length > 0 ? (
          <ul className="lines">
            {usage.data.callers.map((caller) => (
              <li key={`${caller.ip} ${caller.userAgent}`}>
                <Text size="sm" className="grow anywhere">
                  {caller.userAgent || '–'} <span className="mono muted">{caller.ip}</span>
                </Text>
                <Text size="sm" c="dimmed" className="figures">
                  {t.detail.requests(caller.count)} · <Time iso={caller.lastSeen} />
                </Text>
              </li>
            ))}
          </ul>
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
          <ul className="lines">
            {trail.data.items.map((event) => (
              <li key={event.id}>
                <Text size="sm" className="grow">
                  {t.audit.actions[event.action]}{' '}
                  <span className="muted">· {event.actor.type === 'system' ? t.audit.system : event.actor.name}</span>
                </Text>
                <Text size="sm" c="dimmed">
                  <Time iso={event.at} />
                </Text>
              </li>
            ))}
          </ul>
        ) : (
          <Text c="dimmed">{t.detail.noTrail}</Text>
        )}
      </Section>
      <Suspense>
        {dialog === 'revoke' && <RevokeDialog tokens={[it]} onClose={() => setDialog(null)} />}
        {dialog === 'rotate' && (
          <RotateDialog token={it} onClose={() => setDialog(null)} onOpen={(next) => go(`/api-tokens/${next}`)} />
        )}
        {dialog === 'edit' && <EditDialog token={it} onClose={() => setDialog(null)} />}
      </Suspense>
    </Page>
  );
}
