import type { RevocationReason, RevokedToken, Token } from '@latchkey/contracts';
import { Alert, Button, Loader, Select, Stack, Text, Textarea } from '@mantine/core';
import { IconAlertTriangle } from '@tabler/icons-react';
import { useQueries } from '@tanstack/react-query';
import { useEffect, useRef, useState } from 'react';
import { api, changedTokens } from '../api.js';
import { t } from '../texts.js';
import { Buttons } from '../ui/Confirm.js';
import { Dialog } from '../ui/Dialog.js';
import { ErrorNotice } from '../ui/Notice.js';
import { Time } from '../ui/Time.js';
import { EffectView } from './Receipt.js';

const REASONS = Object.entries(t.tokens.reasonLabels).map(([value, label]) => ({ value, label }));
const MONTH_MS = 30 * 86_400_000;
const SHOWN_MAX = 5;

function WillBreak({ tokens }: { tokens: readonly Token[] }) {
  const [from] = useState(() => new Date(Date.now() - MONTH_MS).toISOString());
  const usages = useQueries({
    queries: tokens.map((token) => ({
      queryKey: ['tokenUsage', token.id, 'month', from],
      queryFn: () => api.tokenUsage({ params: { id: token.id }, query: { from } }),
    })),
  });
  if (usages.some((u) => u.isPending)) return <Loader size="xs" role="status" aria-label={t.status.loading} />;
  const failed = usages.find((u) => u.error);
  if (failed) return <ErrorNotice error={failed.error} />;
  const callers = usages
    .flatMap((u) => u.data?.callers ?? [])
    .sort((a, b) => Date.parse(b.lastSeen) - Date.parse(a.lastSeen));
  if (callers.length === 0) return <Alert color="gray">{t.revoke.nothing}</Alert>;
  return (
    <Alert
      color="red"
      icon={<IconAlertTriangle size={20} aria-hidden />}
      title={`${t.revoke.willBreak}: ${t.revoke.callers(callers.length)}`}
    >
      <ul className="lines">
        {callers.slice(0, SHOWN_MAX).map((caller, index) => (
          // biome-ignore lint/suspicious/noArrayIndexKey: two tokens may have the same caller
          <li key={index}>
            <Text size="sm" className="grow ellipsis">
              {caller.userAgent || '–'} <span className="mono muted">{caller.ip}</span>
            </Text>
            <Text size="sm" c="dimmed" className="figures">
              {caller.count}× · <Time iso={caller.lastSeen} />
            </Text>
          </li>
        ))}
      </ul>
      {callers.length > SHOWN_MAX && (
        <Text size="sm" c="dimmed">
          {t.revoke.further(callers.length - SHOWN_MAX)}
        </Text>
      )}
    </Alert>
  );
}

/** How far a revocation reached beyond the token itself, and what the token changed that stands. */
function Reach({ effect: { ended, alsoChanged, effective, pending } }: { effect: RevokedToken }) {
  const parts = (['successors', 'descendants', 'shown'] as const).filter((part) => ended[part] > 0);
  return (
    <>
      {!effective && pending.length === 0 && <Text size="sm">{t.revoke.more}</Text>}
      {parts.length > 0 && (
        <Text size="sm" mt={4}>
          {t.revoke.ended(ended.tokens)}: {parts.map((part) => t.revoke.endedParts[part](ended[part])).join(', ')}
        </Text>
      )}
      {alsoChanged && alsoChanged.items.length + alsoChanged.others > 0 && (
        <Alert color="yellow" mt="xs" icon={<IconAlertTriangle size={20} aria-hidden />} title={t.revoke.alsoChanged}>
          <ul className="lines">
            {alsoChanged.items.map((item) => (
              <li key={item.id}>
                <Text size="sm" className="grow ellipsis">
                  {t.audit.actions[item.action]} {item.subject && `“${item.subject.name}”`}
                </Text>
                <Text size="sm" c="dimmed">
                  <Time iso={item.at} />
                </Text>
              </li>
            ))}
          </ul>
          {alsoChanged.others > 0 && (
            <Text size="sm" c="dimmed">
              {t.revoke.others(alsoChanged.others)}
            </Text>
          )}
        </Alert>
      )}
    </>
  );
}

/** Names what is revoked and what breaks, asks once more, then shows the receipt as it arrives. */
export function RevokeDialog({ tokens, onClose }: { tokens: readonly Token[]; onClose(): void }) {
  const [reason, setReason] = useState<RevocationReason>('unspecified');
  const [comment, setComment] = useState('');
  const [working, setWorking] = useState(false);
  const [error, setError] = useState<unknown>(null);
  const [effects, setEffects] = useState<RevokedToken[]>([]);
  const alive = useRef(true);
  useEffect(() => {
    alive.current = true;
    return () => {
      alive.current = false;
    };
  }, []);

  const revoke = async () => {
    setWorking(true);
    setError(null);
    const done: RevokedToken[] = [];
    try {
      for (const token of tokens) {
        const params = { id: token.id };
        const body = { reason, ...(comment ? { comment } : {}) };
        // Durable at once, then waiting: the dialog shows who is pending meanwhile.
        const first = await api.revokeToken({ params, body }, { waitSeconds: 0 });
        done.push(first);
        setEffects([...done]);
        if (!first.effective && alive.current) {
          done[done.length - 1] = await api.revokeToken({ params, body });
          setEffects([...done]);
        }
      }
    } catch (failure) {
      setError(failure);
    } finally {
      setWorking(false);
      changedTokens(...done.map(({ token }) => token));
    }
  };

  const [only] = tokens.length === 1 ? tokens : [];
  const finished = effects.length === tokens.length && effects.every((e) => e.effective);
  return (
    <Dialog onClose={onClose} title={only ? t.revoke.title(only.name) : t.revoke.many(tokens.length)} size="lg">
      <Stack>
        {effects.length === 0 && (
          <>
            <Text>{t.revoke.lead}</Text>
            {!only && <Text size="sm">{tokens.map(({ name }) => `“${name}”`).join(', ')}</Text>}
            <WillBreak tokens={tokens} />
            <Select
              label={t.revoke.reason}
              data={REASONS}
              value={reason}
              allowDeselect={false}
              onChange={(value) => setReason((value ?? 'unspecified') as RevocationReason)}
            />
            {reason === 'exposed' && <Text size="sm">{t.revoke.leadExposed}</Text>}
            <Textarea
              label={t.revoke.comment}
              value={comment}
              maxLength={1_000}
              autosize
              minRows={2}
              onChange={(e) => setComment(e.currentTarget.value)}
            />
          </>
        )}
        {effects.map((effect) => (
          <div key={effect.token.id}>
            {!only && (
              <Text size="sm" fw={600} mb={4}>
                {effect.token.name}
              </Text>
            )}
            <EffectView effect={effect} refused />
            <Reach effect={effect} />
          </div>
        ))}
        {error !== null && <ErrorNotice error={error} retry={() => void revoke()} />}
        <Buttons>
          {finished ? (
            <Button onClick={onClose} data-autofocus>
              {t.actions.done}
            </Button>
          ) : (
            <>
              <Button variant="default" onClick={onClose} data-autofocus>
                {effects.length > 0 ? t.actions.close : t.actions.cancel}
              </Button>
              {(effects.length === 0 || working) && (
                <Button color="red" loading={working} onClick={() => void revoke()}>
                  {t.revoke.confirm}
                </Button>
              )}
            </>
          )}
        </Buttons>
      </Stack>
    </Dialog>
  );
}
