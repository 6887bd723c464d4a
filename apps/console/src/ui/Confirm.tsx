import { Button, Group, Stack, Text } from '@mantine/core';
import { type ReactNode, useState } from 'react';
import { t } from '../texts.js';
import { Dialog } from './Dialog.js';
import { ErrorNotice } from './Notice.js';

export interface Question {
  title: string;
  lead: string;
  /** On the button: what happens. */
  confirm: string;
  /** What is shown in the dialog once it is done; nothing: it closes. */
  work(): Promise<ReactNode>;
  /** Whether a failure can be mended in the dialog, and with what, after which `again` repeats the work. */
  recovery?(failure: unknown, again: () => void): ReactNode;
  /** What is shown while it is being done. */
  working?: string;
}

/** Asks once more before something that cannot be taken back, does it, and stays to show what came of it. */
export function Confirm({ question, onClose }: { question: Question; onClose(): void }) {
  const [working, setWorking] = useState(false);
  const [error, setError] = useState<unknown>(null);
  const [outcome, setOutcome] = useState<ReactNode>(null);
  const act = async () => {
    setWorking(true);
    setError(null);
    try {
      const shown = await question.work();
      if (shown) setOutcome(shown);
      else onClose();
    } catch (failure) {
      setError(failure);
    } finally {
      setWorking(false);
    }
  };
  const recovery = error === null ? null : question.recovery?.(error, () => void act());
  return (
    <Dialog onClose={onClose} title={question.title}>
      <Stack>
        {outcome ?? <Text>{question.lead}</Text>}
        {recovery ?? (error !== null && <ErrorNotice error={error} />)}
        {working && question.working && (
          <Text size="sm" c="dimmed" role="status">
            {question.working}
          </Text>
        )}
        <Buttons>
          {outcome ? (
            <Button onClick={onClose} data-autofocus>
              {t.actions.done}
            </Button>
          ) : (
            <>
              <Button variant="default" onClick={onClose} data-autofocus>
                {t.actions.cancel}
              </Button>
              {!recovery && (
                <Button color="red" loading={working} onClick={() => void act()}>
                  {question.confirm}
                </Button>
              )}
            </>
          )}
        </Buttons>
      </Stack>
    </Dialog>
  );
}

/** The buttons that end a dialog or a form: the one that acts stands last. */
export function Buttons({ children }: { children: ReactNode }) {
  return (
    <Group justify="flex-end" gap="xs" mt="xs">
      {children}
    </Group>
  );
}
