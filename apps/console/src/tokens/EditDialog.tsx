import type { Token, TokenEffect } from '@latchkey/contracts';
import { Button, Stack, Text } from '@mantine/core';
import { useState } from 'react';
import { api, changedTokens } from '../api.js';
import { t } from '../texts.js';
import { Buttons } from '../ui/Confirm.js';
import { Dialog } from '../ui/Dialog.js';
import { useSubmit } from '../ui/form.js';
import { ErrorNotice } from '../ui/Notice.js';
import { EffectView } from './Receipt.js';
import { bodyOf, NameFields, RightsFields, type TokenForm } from './TokenFields.js';

/** Name, description and rights of a token; sends only what was changed, since changed rights wait for every gateway. */
export function EditDialog({ token, onClose }: { token: Token; onClose(): void }) {
  const [form, setForm] = useState<TokenForm>({
    name: token.name,
    description: token.description,
    scopes: token.scopes,
    addresses: token.allowedIps.join(' '),
    limit: token.rateLimit?.limit ?? '',
    windowSeconds: token.rateLimit?.windowSeconds ?? 60,
  });
  const [effect, setEffect] = useState<TokenEffect | null>(null);
  const { onSubmit, working, error } = useSubmit(async () => {
    const body = Object.fromEntries(
      Object.entries(bodyOf(form)).filter(
        ([field, value]) => JSON.stringify(value) !== JSON.stringify(token[field as keyof Token]),
      ),
    );
    if (Object.keys(body).length === 0) return onClose();
    const answer = await api.patchToken({ params: { id: token.id }, body });
    changedTokens(answer.token);
    if (answer.receipt || !answer.effective) setEffect(answer);
    else onClose();
  });
  const fields = { form, onChange: (change: Partial<TokenForm>) => setForm((f) => ({ ...f, ...change })), error };
  return (
    <Dialog onClose={onClose} title={t.edit.title(token.name)} size="lg">
      {effect ? (
        <Stack>
          <EffectView effect={effect} />
          <Buttons>
            <Button onClick={onClose} data-autofocus>
              {t.actions.done}
            </Button>
          </Buttons>
        </Stack>
      ) : (
        <form onSubmit={onSubmit}>
          <Stack>
            <NameFields {...fields} />
            <RightsFields {...fields} />
            <Text size="sm" c="dimmed">
              {t.edit.effective}
            </Text>
            {error !== null && <ErrorNotice error={error} />}
            <Buttons>
              <Button variant="default" onClick={onClose}>
                {t.actions.cancel}
              </Button>
              <Button type="submit" loading={working}>
                {t.actions.save}
              </Button>
            </Buttons>
          </Stack>
        </form>
      )}
    </Dialog>
  );
}
