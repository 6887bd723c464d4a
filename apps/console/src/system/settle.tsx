import type { SettleRestoreBody } from '@latchkey/contracts';
import { api, changed } from '../api.js';
import { needsNewSignIn, SignInAgain } from '../app/SignInAgain.js';
import { t } from '../texts.js';
import { EffectView } from '../tokens/Receipt.js';
import type { Question } from '../ui/Confirm.js';

export type Choice = SettleRestoreBody['choice'];

/** Asks once more, and for a newer sign-in where the service wants one; then settles and shows the receipt. */
export function settleQuestion(choice: Choice): Question {
  const { question: title, lead, confirm } = t.restore.choices[choice];
  return {
    title,
    lead,
    confirm,
    working: t.restore.confirming,
    async work() {
      const effect = await api.settleRestore({ body: { choice } });
      changed('getSystem', 'whoAmI', 'listTokens', 'getToken', 'listUsers', 'listAudit');
      return <EffectView effect={effect} refused={choice === 'revoke'} />;
    },
    recovery: (failure, again) => (needsNewSignIn(failure) ? <SignInAgain onSignedIn={again} /> : null),
  };
}
