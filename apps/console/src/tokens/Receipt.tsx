import type { Effect, Receipt as ReceiptOf } from '@latchkey/contracts';
import { Alert, Loader, Text } from '@mantine/core';
import { IconCircleCheck } from '@tabler/icons-react';
import { t } from '../texts.js';

const milliseconds = (ms: number) => (ms < 10 ? `${ms.toFixed(1)} ms` : `${Math.round(ms)} ms`);
const seconds = (ms: number) => `${Math.ceil(ms / 1_000)} s`;

/** Who confirmed, how, and after how long. */
export function Receipt({ receipt }: { receipt: ReceiptOf }) {
  return (
    <div>
      <Text fw={600} mb={4}>
        {receipt.verifiers.length > 0 ? t.revoke.done(milliseconds(receipt.elapsedMs)) : t.revoke.doneNobody}
      </Text>
      {receipt.verifiers.map((verifier) => (
        <div className="receipt-row" key={verifier.id}>
          <IconCircleCheck size={18} color="var(--mantine-color-green-light-color)" aria-hidden />
          <Text size="sm" className="mono ellipsis">
            {verifier.name}
          </Text>
          <Text size="sm" c="dimmed">
            {t.revoke.by[verifier.by]} · {milliseconds(verifier.ms)}
          </Text>
        </div>
      ))}
    </div>
  );
}

/** How far a change that narrows rights has got: its receipt, or who is still pending and until when. */
export function EffectView({ effect }: { effect: Effect }) {
  if (effect.effective) {
    return (
      <Alert color="green" variant="light" role="status">
        {effect.receipt && <Receipt receipt={effect.receipt} />}
      </Alert>
    );
  }
  return (
    <Alert color="yellow" variant="light" role="status">
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
