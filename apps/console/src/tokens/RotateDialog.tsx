import type { RotatedToken, Token } from '@latchkey/contracts';
import { Button, Select, Stack, Text } from '@mantine/core';
import { useState } from 'react';
import { api, changed } from '../api.js';
import { t } from '../texts.js';
import { Buttons } from '../ui/Confirm.js';
import { Dialog } from '../ui/Dialog.js';
import { useSubmit } from '../ui/form.js';
import { ErrorNotice } from '../ui/Notice.js';
import { EffectView } from './Receipt.js';
import { SecretOnce } from './SecretOnce.js';

/** Makes a successor; shows its secret once. */
export function RotateDialog({ token, onClose, onOpen }: { token: Token; onClose(): void; onOpen(id: string): void }) {
  const [overlap, setOverlap] = useState('0');
  const [issued, setIssued] = useState<RotatedToken | null>(null);
  const { submit, working, error } = useSubmit(async () => {
    const answer = await api.rotateToken({ params: { id: token.id }, body: { overlapSeconds: Number(overlap) } });
    setIssued(answer);
    changed('listTokens', 'getToken', 'listAudit');
  });
  if (issued) {
    const leave = () => {
      setIssued(null);
      onClose();
      onOpen(issued.id);
    };
    return (
      <Dialog
        onClose={() => undefined}
        withCloseButton={false}
        closeOnEscape={false}
        closeOnClickOutside={false}
        title={t.once.title}
        size="xl"
      >
        <Stack>
          {overlap === '0' && <EffectView effect={issued} refused />}
          <SecretOnce secret={issued.secret} onDone={leave} />
        </Stack>
      </Dialog>
    );
  }
  return (
    <Dialog onClose={onClose} title={t.rotate.title(token.name)}>
      <Stack>
        <Text>{t.rotate.lead}</Text>
        <Select
          label={t.rotate.overlap}
          data={[...t.rotate.options]}
          value={overlap}
          allowDeselect={false}
          onChange={(v) => setOverlap(v ?? '0')}
        />
        {error !== null && <ErrorNotice error={error} />}
        <Buttons>
          <Button variant="default" onClick={onClose}>
            {t.actions.cancel}
          </Button>
          <Button loading={working} onClick={() => void submit()}>
            {t.rotate.confirm}
          </Button>
        </Buttons>
      </Stack>
    </Dialog>
  );
}
