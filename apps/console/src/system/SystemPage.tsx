import type { SystemState } from '@latchkey/contracts';
import { Text } from '@mantine/core';
import { IconAlertTriangle, IconCircleCheck, IconCircleOff } from '@tabler/icons-react';
import { useQuery } from '@tanstack/react-query';
import { t } from '../texts.js';
import { Fact, Facts } from '../ui/Facts.js';
import { ErrorNotice } from '../ui/Notice.js';
import { Loading, Page, Section } from '../ui/Page.js';
import { RestoreSection } from './RestoreSection.js';
import { systemQuery } from './restore.js';

const LEDGER = {
  written: { icon: IconCircleCheck, className: 'status status-active' },
  failed: { icon: IconAlertTriangle, className: 'status status-revoked' },
  off: { icon: IconCircleOff, className: 'status status-disabled' },
} as const;

function Ledger({ ledger: { state, reason } }: Pick<SystemState, 'ledger'>) {
  const { icon: Icon, className } = LEDGER[state];
  return (
    <Section
      title={t.system.ledger}
      lead={t.system.ledgerLead}
      aside={
        <span className={className}>
          <Icon size={14} stroke={2} aria-hidden />
          {t.system.ledgerStates[state]}
        </span>
      }
    >
      <Text size="sm">{t.system.ledgerTexts[state]}</Text>
      {reason !== null && (
        <Text size="sm" mt={4} className="anywhere">
          {reason}
        </Text>
      )}
    </Section>
  );
}

function Running({ versions, guarantee, peppers }: Pick<SystemState, 'versions' | 'guarantee' | 'peppers'>) {
  return (
    <Section title={t.system.running}>
      <Facts>
        <Fact label={t.system.tokenService}>{versions.tokenService}</Fact>
        <Fact label={t.system.database}>{versions.database}</Fact>
        <Fact label={t.system.guarantee}>{t.system.guaranteeOf(guarantee)}</Fact>
        <Fact label={t.system.peppers}>
          {peppers.map((pepper) => (
            <div key={pepper.id}>{t.system.pepperOf(pepper)}</div>
          ))}
        </Fact>
      </Facts>
    </Section>
  );
}

/** Restores of the database and what administrators decide about them; the ledger; versions. */
export function SystemPage() {
  const { data, error, isPending, refetch } = useQuery(systemQuery);
  return (
    <Page title={t.system.title} lead={t.system.lead}>
      {error && <ErrorNotice error={error} retry={() => void refetch()} />}
      {isPending && <Loading />}
      {data && (
        <>
          <RestoreSection restore={data.restore} />
          <Ledger ledger={data.ledger} />
          <Running {...data} />
        </>
      )}
    </Page>
  );
}
