import type { Token, TokenEffect } from '@latchkey/contracts';
import { Button, Group, Modal, Stack, Text, Textarea, TextInput } from '@mantine/core';
import { type FormEvent, useState } from 'react';
import { api, changed, fieldError } from '../api.js';
import { t } from '../texts.js';
import { ErrorNotice } from '../ui/Notice.js';
import { EffectView } from './Receipt.js';
import { type Rights, RightsFields, rightsBody } from './RightsFields.js';

/** Name, description and rights of a token; sends only what was changed, since changed rights wait for every gateway. */
export function EditDialog({ token, onClose }: { token: Token; onClose(): void }) {
  const [name, setName] = useState(token.name);
  const [description, setDescription] = useState(token.description);
  const [rights, setRights] = useState<Rights>({
    scopes: token.scopes,
    addresses: token.allowedIps.join(' '),
    limit: token.rateLimit?.limit ?? '',
    windowSeconds: token.rateLimit?.windowSeconds ?? 60,
  });
  const [working, setWorking] = useState(false);
  const [error, setError] = useState<unknown>(null);
  const [effect, setEffect] = useState<TokenEffect | null>(null);
  const save = async (event: FormEvent) => {
    event.preventDefault();
    const wanted = { name: name.trim(), description, ...rightsBody(rights) };
    const body = Object.fromEntries(
      Object.entries(wanted).filter(
        ([field, value]) => JSON.stringify(value) !== JSON.stringify(token[field as keyof Token]),
      ),
    );
    if (Object.keys(body).length === 0) return onClose();
    setWorking(true);
    setError(null);
    try {
      const answer = await api.patchToken({ params: { id: token.id }, body });
      changed('listTokens', 'getToken', 'listAudit');
      if (answer.receipt || !answer.effective) setEffect(answer);
      else onClose();
    } catch (failure) {
      setError(failure);
    } finally {
      setWorking(false);
    }
  };
  return (
    <Modal opened onClose={onClose} title={t.edit.title(token.name)} size="lg">
      {effect ? (
        <Stack>
          <EffectView effect={effect} />
          <Group justify="flex-end">
            <Button onClick={onClose}>{t.actions.done}</Button>
          </Group>
        </Stack>
      ) : (
        <form onSubmit={(e) => void save(e)}>
          <Stack>
            <TextInput
              label={t.create.name}
              required
              maxLength={100}
              value={name}
              onChange={(e) => setName(e.currentTarget.value)}
              error={fieldError(error, 'name')}
            />
            <Textarea
              label={t.create.description}
              maxLength={1_000}
              autosize
              minRows={2}
              value={description}
              onChange={(e) => setDescription(e.currentTarget.value)}
            />
            <RightsFields rights={rights} onChange={setRights} error={error} />
            <Text size="sm" c="dimmed">
              {t.edit.effective}
            </Text>
            {error !== null && <ErrorNotice error={error} />}
            <Group justify="flex-end">
              <Button variant="default" onClick={onClose}>
                {t.actions.cancel}
              </Button>
              <Button type="submit" loading={working}>
                {t.actions.save}
              </Button>
            </Group>
          </Stack>
        </form>
      )}
    </Modal>
  );
}
