import type { Effect, Receipt, VerifierCaller } from '@latchkey/contracts';
import { requestContext } from '../http/index.js';

/** Administrators see the caller of a verifier; everyone else only whether it is Latchkey's own. */
function canSeeCallers(): boolean {
  const rights = requestContext.getStore()?.actor?.rights;
  return rights?.everywhere === true && rights.holds('tokens:read');
}

const typeOnly = <T extends { caller?: VerifierCaller | undefined }>(verifier: T): T =>
  verifier.caller ? { ...verifier, caller: { type: verifier.caller.type } } : verifier;

/** A receipt as the current actor can see it. */
export function receiptAsSeen(receipt: Receipt | null): Receipt | null {
  if (receipt === null || canSeeCallers()) return receipt;
  return { ...receipt, verifiers: receipt.verifiers.map(typeOnly) };
}

export function effectAsSeen(effect: Effect): Effect {
  if (canSeeCallers()) return effect;
  return { ...effect, receipt: receiptAsSeen(effect.receipt), pending: effect.pending.map(typeOnly) };
}
