import type { Effect, Receipt as ReceiptOf } from '@latchkey/contracts';
import { Alert, Loader, Text } from '@mantine/core';
import { IconCircleCheck, IconHourglass } from '@tabler/icons-react';
import { t } from '../texts.js';
import { milliseconds, seconds } from '../ui/duration.js';

interface Props {
  /** True where the token, or all that the change names, is refused from now on; otherwise rights were changed. */
  refused?: boolean;
}

function headline({ elapsedMs, verifiers }: ReceiptOf, refused: boolean): string {
  if (verifiers.length === 0) return refused ? t.revoke.doneNobody : t.revoke.changedNobody;
  return (refused ? t.revoke.done : t.revoke.changed)(milliseconds(elapsedMs));
}

/** Who confirmed, how, and after how long. */
export function Receipt({ receipt, refused = false }: Props & { receipt: ReceiptOf }) {
  return (
    <div>
      <Text fw={600} mb={4}>
        {headline(receipt, refused)}
      </Text>
      {receipt.verifiers.map((verifier) => (
        <div className="receipt-row" key={verifier.id}>
          <IconCircleCheck size={18} color="var(--ok)" aria-hidden />
          <Text size="sm" className="mono ellipsis">
            {verifier.name}
          </Text>
          <Text size="sm" c="dimmed" className="figures">
            {t.revoke.by[verifier.by]} · {milliseconds(verifier.ms)}
          </Text>
        </div>
      ))}
    </div>
  );
}

/** How far a change that narrows rights has got: its receipt, or who is still pending and until when. */
export function EffectView({ effect, refused = false }: Props & { effect: Effect }) {
  if (effect.effective) {
    return (
      <Alert color="green" variant="light" role="status" icon={<IconCircleCheck size={20} aria-hidden />}>
        {effect.receipt && <Receipt receipt={effect.receipt} refused={refused} />}
      </Alert>
    );
  }
  return (
    <Alert color="yellow" variant="light" role="status" icon={<IconHourglass size={20} aria-hidden />}>
      <Text fw={600} mb={4}>
        {t.revoke.pending}
      </Text>
      {effect.pending.map((verifier) => (
        <div className="receipt-row" key={verifier.id}>
          <Loader size={14} />
          <Text size="sm" className="mono ellipsis">
            {verifier.name}
          </Text>
          <Text size="sm" c="dimmed">
            {t.revoke.until(seconds(verifier.leaseEndsInMs))}
          </Text>
        </div>
      ))}
    </Alert>
  );
}
