import type { SettledRestore, SettleRestoreBody } from '@latchkey/contracts';
import { Button, Stack, Text } from '@mantine/core';
import { useState } from 'react';
import { api, changed } from '../api.js';
import { needsNewSignIn, SignInAgain } from '../app/SignInAgain.js';
import { t } from '../texts.js';
import { EffectView } from '../tokens/Receipt.js';
import { Buttons } from '../ui/Confirm.js';
import { Dialog } from '../ui/Dialog.js';
import { useSubmit } from '../ui/form.js';
import { ErrorNotice } from '../ui/Notice.js';

export type Choice = SettleRestoreBody['choice'];

/** Asks once more, and for a newer sign-in where the service wants one; then settles and shows the receipt. */
export function SettleDialog({ choice, onClose }: { choice: Choice; onClose(): void }) {
  const [effect, setEffect] = useState<SettledRestore | null>(null);
  const { submit, working, error } = useSubmit(async () => {
    setEffect(await api.settleRestore({ body: { choice } }));
    changed('getSystem', 'whoAmI', 'listTokens', 'getToken', 'listUsers', 'listAudit');
  });
  const texts = t.restore.choices[choice];
  const asksSignIn = needsNewSignIn(error);
  return (
    <Dialog onClose={onClose} title={texts.question} size="lg">
      <Stack>
        {effect ? <EffectView effect={effect} refused={choice === 'revoke'} /> : <Text>{texts.lead}</Text>}
        {asksSignIn && <SignInAgain onSignedIn={() => void submit()} />}
        {error !== null && !asksSignIn && <ErrorNotice error={error} />}
        {working && (
          <Text size="sm" c="dimmed" role="status">
            {t.restore.confirming}
          </Text>
        )}
        <Buttons>
          {effect ? (
            <Button onClick={onClose} data-autofocus>
              {t.actions.done}
            </Button>
          ) : (
            <>
              <Button variant="default" onClick={onClose} data-autofocus>
                {t.actions.cancel}
              </Button>
              {!asksSignIn && (
                <Button color="red" loading={working} onClick={() => void submit()}>
                  {texts.confirm}
                </Button>
              )}
            </>
          )}
        </Buttons>
      </Stack>
    </Dialog>
  );
}
