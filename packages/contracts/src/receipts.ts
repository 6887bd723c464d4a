import { type KeyObject, sign, verify } from 'node:crypto';
import { canonicalJson, signerOf } from './audit-chain.js';
import { type Receipt, type ReceiptChange, type ReceiptKeys, receiptSchema } from './http/common.js';

/** A receipt without its signature. */
type Unsigned = Pick<Receipt, 'id' | 'confirmedAt' | 'elapsedMs' | 'verifiers' | 'ledger'>;

const TYPE = 'latchkey-receipt+jwt';

/**
 * The text that is signed: the signing input of a JWS (RFC 7515), so that any JWS library can verify the signature. Its
 * payload is canonical JSON of the fields below, with only the type of callers: a receipt proves the same to readers
 * without permission to see the owners of verifiers. Receipts without an id are of version 1.
 */
function signingInput({ id: jti, ...receipt }: Unsigned, change: ReceiptChange, keyId: string): string {
  const { id, action, at, reason, subject } = change;
  const payload = {
    ...(jti === undefined ? { v: 1 } : { v: 2, jti }),
    change: { id, action, at, reason, subject: { type: subject.type, id: subject.id } },
    confirmedAt: receipt.confirmedAt,
    elapsedMs: receipt.elapsedMs,
    ...(receipt.ledger && { ledger: receipt.ledger }),
    verifiers: receipt.verifiers.map((verifier) => ({
      id: verifier.id,
      name: verifier.name,
      caller: verifier.caller?.type ?? null,
      by: verifier.by,
      ms: verifier.ms,
    })),
  };
  const header = { alg: 'EdDSA', kid: keyId, typ: TYPE };
  return [header, payload].map((part) => Buffer.from(canonicalJson(part)).toString('base64url')).join('.');
}

/** @param key Ed25519, private */
export function signReceipt(key: KeyObject, receipt: Receipt, change: ReceiptChange): Receipt {
  const keyId = signerOf(key);
  const signature = sign(null, Buffer.from(signingInput(receipt, change, keyId)), key).toString('base64url');
  return { ...receipt, change, keyId, signature };
}

/** The same receipt as a JSON Web Token, for any JWS library; undefined: not signed. */
export function receiptJwt(receipt: Receipt): string | undefined {
  const { change, keyId, signature } = receipt;
  return change && keyId && signature ? `${signingInput(receipt, change, keyId)}.${signature}` : undefined;
}

/** The receipt in a JSON Web Token of `receiptJwt`, not verified yet; undefined: it contains none. */
export function receiptOfJwt(jwt: string): Receipt | undefined {
  const [header = '', payload = '', signature, ...more] = jwt.split('.');
  if (!signature || more.length > 0) return undefined;
  try {
    const [{ kid: keyId, typ }, { jti: id, verifiers, ...rest }] = [header, payload].map((part) =>
      JSON.parse(Buffer.from(part, 'base64url').toString('utf8')),
    ) as [{ kid: unknown; typ: unknown }, { jti?: unknown; verifiers: { caller: unknown }[] }];
    if (typ !== TYPE) return undefined;
    const named = verifiers.map(({ caller: type, ...verifier }) => ({
      ...verifier,
      ...(type ? { caller: { type } } : {}),
    }));
    return receiptSchema.safeParse({ id, ...rest, verifiers: named, keyId, signature }).data;
  } catch {
    return undefined;
  }
}

/**
 * The keys that verify receipts, as a JWK Set (RFC 7517, RFC 8037).
 * @param keys Ed25519, public
 */
export function receiptKeys(keys: readonly KeyObject[]): ReceiptKeys {
  return {
    keys: keys.map((key) => {
      const { x } = key.export({ format: 'jwk' });
      return { kty: 'OKP', crv: 'Ed25519', x: x!, kid: signerOf(key), use: 'sig', alg: 'EdDSA' };
    }),
  };
}

export type ReceiptVerdict = { ok: true; keyId: string; change: ReceiptChange } | { ok: false; reason: string };

/**
 * Whether one of these keys signed the receipt. Of the owners of verifiers only the type is signed.
 * @param keys public keys to trust
 */
export function verifyReceipt(receipt: Receipt, keys: readonly KeyObject[]): ReceiptVerdict {
  const { change, keyId, signature } = receipt;
  if (!change || !keyId || !signature)
    return { ok: false, reason: 'it is not signed: the service had no signing key, or could not determine the change' };
  const key = keys.find((candidate) => signerOf(candidate) === keyId);
  if (!key) return { ok: false, reason: `it names the key ${keyId} as its signer, which is no trusted key` };
  const isRight = verify(
    null,
    Buffer.from(signingInput(receipt, change, keyId)),
    key,
    Buffer.from(signature, 'base64url'),
  );
  if (!isRight) return { ok: false, reason: 'it is not what was signed: it was changed afterwards, or is forged' };
  return { ok: true, keyId, change };
}
