import type { VerifierItem } from '@latchkey/contracts';
import { Alert, Text } from '@mantine/core';
import { IconServer2 } from '@tabler/icons-react';
import { useQuery } from '@tanstack/react-query';
import { useState } from 'react';
import { api, changed } from '../api.js';
import { t } from '../texts.js';
import { Confirm, type Question } from '../ui/Confirm.js';
import { seconds } from '../ui/duration.js';
import { ErrorNotice } from '../ui/Notice.js';
import { Empty, Loading, Page } from '../ui/Page.js';
import { Time } from '../ui/Time.js';
import { VerifierTable } from './VerifierTable.js';

/** Leases are renewed every few seconds: soon enough to see one that is not. */
const READ_AGAIN_MS = 2_000;

function ending({ id, name, caller }: VerifierItem): Question {
  return {
    title: t.gateways.endTitle(name || id),
    lead: caller.type === 'token' ? t.gateways.endTokenLead : t.gateways.endLead,
    confirm: t.gateways.end,
    work: async () => {
      const { leaseEndsInMs } = await api.endVerifier({ params: { id } });
      changed('listVerifiers', 'listAudit');
      return (
        <Alert color="green" role="status">
          {t.gateways.ended(seconds(leaseEndsInMs))}
        </Alert>
      );
    },
  };
}

/** Who can answer checks from memory just now. */
export function GatewaysPage() {
  const [question, setQuestion] = useState<Question | null>(null);
  const list = useQuery({
    queryKey: ['listVerifiers'],
    queryFn: () => api.listVerifiers(),
    refetchInterval: READ_AGAIN_MS,
  });
  const items = list.data?.items ?? [];
  return (
    <Page title={t.gateways.title} lead={t.gateways.lead}>
      {list.error && <ErrorNotice error={list.error} retry={() => void list.refetch()} />}
      {list.isPending && <Loading />}
      {list.data && items.length === 0 && (
        <Empty
          icon={<IconServer2 size={36} stroke={1.4} aria-hidden />}
          title={t.gateways.emptyTitle}
          text={t.gateways.empty}
        />
      )}
      {items.length > 0 && (
        <>
          <Text size="sm" c="dimmed">
            {t.gateways.count(items.length)}
            {list.error && (
              <>
                {' · '}
                {t.gateways.asOf} <Time iso={new Date(list.dataUpdatedAt).toISOString()} />
              </>
            )}
          </Text>
          <VerifierTable items={items} onEnd={(verifier) => setQuestion(ending(verifier))} />
        </>
      )}
      {question && <Confirm question={question} onClose={() => setQuestion(null)} />}
    </Page>
  );
}
