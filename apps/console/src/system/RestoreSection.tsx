import type { Restore } from '@latchkey/contracts';
import { Anchor, Badge, Button, Group, Paper, Stack, Text, Title } from '@mantine/core';
import { useState } from 'react';
import { t } from '../texts.js';
import { Confirm } from '../ui/Confirm.js';
import { Fact, Facts } from '../ui/Facts.js';
import { Section } from '../ui/Page.js';
import { ExactTime, Time } from '../ui/Time.js';
import { type Choice, settleQuestion } from './settle.js';

/** What is known of the restore, whatever its state. */
function Known({ restore }: { restore: Restore }) {
  const { detectedAt, newestEventAt, reason, ledgerReachesTo, state } = restore;
  return (
    <>
      <Fact label={t.restore.detectedAt}>
        <ExactTime iso={detectedAt} />
      </Fact>
      <Fact label={t.restore.newestEventAt}>
        {newestEventAt === null ? (
          t.restore.newestEventUnknown
        ) : (
          <>
            <ExactTime iso={newestEventAt} /> <span className="muted">· {t.restore.lost}</span>
          </>
        )}
      </Fact>
      {ledgerReachesTo !== null && (
        <Fact label={t.restore.ledgerReachesTo}>
          <ExactTime iso={ledgerReachesTo} />
        </Fact>
      )}
      {reason !== null && (
        <Fact label={state === 'unsettled' ? t.restore.reason : t.restore.settledReason}>
          {t.restore.reasons[reason]}
        </Fact>
      )}
    </>
  );
}

function ChoicePanel({ choice, onChoose }: { choice: Choice; onChoose(choice: Choice): void }) {
  const { title, text, when, button } = t.restore.choices[choice];
  const isDefault = choice === 'revoke';
  return (
    <Paper component="section" className={isDefault ? 'choice danger-panel' : 'choice'}>
      <Group gap="xs">
        <Title order={3} size="h5">
          {title}
        </Title>
        {isDefault && (
          <Badge variant="light" tt="none">
            {t.restore.recommended}
          </Badge>
        )}
      </Group>
      <Text size="sm">{text}</Text>
      <Text size="sm" c="dimmed">
        {when}
      </Text>
      <div>
        <Button color="red" variant={isDefault ? 'filled' : 'default'} onClick={() => onChoose(choice)}>
          {button}
        </Button>
      </div>
    </Paper>
  );
}

function Unsettled({ restore, onChoose }: { restore: Restore; onChoose(choice: Choice): void }) {
  return (
    <>
      <Section title={t.restore.title} lead={t.restore.lead}>
        <Facts>
          <Known restore={restore} />
        </Facts>
      </Section>
      <Stack gap="sm">
        <Title order={2} size="h5">
          {t.restore.choose}
        </Title>
        <div className="pair">
          <ChoicePanel choice="revoke" onChoose={onChoose} />
          <ChoicePanel choice="accept" onChoose={onChoose} />
        </div>
      </Stack>
    </>
  );
}

const PAGES: Record<string, string> = { token: 'api-tokens', project: 'projects' };

function Subject({ type, id }: { type: string; id: string }) {
  const page = PAGES[type];
  return (
    <>
      {t.restore.subjects[type] ?? type}{' '}
      {page ? (
        <Anchor href={`#/${page}/${id}`} size="sm" className="mono">
          {id}
        </Anchor>
      ) : (
        <span className="mono">{id}</span>
      )}
    </>
  );
}

function Settled({ restore }: { restore: Restore }) {
  const { settledAt, choice, reapplied, mustSetPassword, sessionsEnded, notReapplied } = restore;
  return (
    <Section title={t.restore.title} lead={t.restore.settledLead}>
      <Facts>
        <Known restore={restore} />
        <Fact label={t.restore.settledAt}>
          {settledAt && <ExactTime iso={settledAt} />}
          {choice && <span className="block">{t.restore.settledBy[choice]}</span>}
        </Fact>
        <Fact label={t.restore.reapplied}>{t.restore.changes(reapplied)}</Fact>
        <Fact label={t.restore.mustSetPassword}>
          {mustSetPassword > 0 ? (
            <Anchor href="#/people" size="sm">
              {t.restore.people(mustSetPassword)}
            </Anchor>
          ) : (
            t.restore.people(0)
          )}
        </Fact>
        <Fact label={t.restore.sessionsEnded}>{sessionsEnded}</Fact>
      </Facts>
      {notReapplied.length > 0 && (
        <>
          <Title order={3} size="h5" mt="lg" mb={4}>
            {t.restore.notReapplied}
          </Title>
          <Text size="sm" c="dimmed">
            {t.restore.notReappliedLead}
          </Text>
          <ul className="lines">
            {notReapplied.map(({ action, subject, at }) => (
              <li key={`${action} ${subject.id} ${at}`}>
                <Text size="sm" className="grow anywhere">
                  {t.audit.actions[action]}: <Subject {...subject} />
                </Text>
                <Text size="sm" c="dimmed">
                  <Time iso={at} />
                </Text>
              </li>
            ))}
          </ul>
        </>
      )}
    </Section>
  );
}

/** The latest restore that was noticed: what is known, the decision while it is unsettled, then what came of it. */
export function RestoreSection({ restore }: { restore: Restore | null }) {
  const [choice, setChoice] = useState<Choice | null>(null);
  if (restore === null) {
    return (
      <Section title={t.restore.title}>
        <Text size="sm">{t.restore.none}</Text>
      </Section>
    );
  }
  return (
    <>
      {restore.state === 'unsettled' ? (
        <Unsettled restore={restore} onChoose={setChoice} />
      ) : (
        <Settled restore={restore} />
      )}
      {/* Its receipt stays in sight when the restore has become settled. */}
      {choice && <Confirm question={settleQuestion(choice)} onClose={() => setChoice(null)} />}
    </>
  );
}
