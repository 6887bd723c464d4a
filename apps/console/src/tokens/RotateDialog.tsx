import type { Token } from '@latchkey/contracts';
import { Button, Group, Modal, Select, Stack, Text } from '@mantine/core';
import { useState } from 'react';
import { api, changed } from '../api.js';
import { t } from '../texts.js';
import { ErrorNotice } from '../ui/Notice.js';
import { SecretOnce } from './SecretOnce.js';

/** Makes a successor; shows its secret once. */
export function RotateDialog({ token, onClose, onOpen }: { token: Token; onClose(): void; onOpen(id: string): void }) {
  const [overlap, setOverlap] = useState('0');
  const [working, setWorking] = useState(false);
  const [error, setError] = useState<unknown>(null);
  const [issued, setIssued] = useState<{ id: string; secret: string } | null>(null);
  const rotate = async () => {
    setWorking(true);
    setError(null);
    try {
      const answer = await api.rotateToken({ params: { id: token.id }, body: { overlapSeconds: Number(overlap) } });
      setIssued({ id: answer.id, secret: answer.secret });
      changed('listTokens', 'getToken', 'listAudit');
    } catch (failure) {
      setError(failure);
    } finally {
      setWorking(false);
    }
  };
  if (issued) {
    const leave = () => {
      setIssued(null);
      onClose();
      onOpen(issued.id);
    };
    return (
      <Modal
        opened
        onClose={() => undefined}
        withCloseButton={false}
        closeOnEscape={false}
        closeOnClickOutside={false}
        title={t.once.title}
        size="xl"
      >
        <SecretOnce secret={issued.secret} onDone={leave} />
      </Modal>
    );
  }
  return (
    <Modal opened onClose={onClose} title={t.rotate.title(token.name)}>
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
        <Group justify="flex-end">
          <Button variant="default" onClick={onClose}>
            {t.actions.cancel}
          </Button>
          <Button loading={working} onClick={() => void rotate()}>
            {t.rotate.confirm}
          </Button>
        </Group>
      </Stack>
    </Modal>
  );
}
