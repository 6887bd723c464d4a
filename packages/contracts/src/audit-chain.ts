import { createHash, createPublicKey, hash, type KeyObject, sign, verify } from 'node:crypto';
import { z } from 'zod';
import { type AuditEvent, auditEventSchema } from './http/audit.js';

/** The hash before the first event: 32 zero bytes. */
export const CHAIN_START = '0'.repeat(64);

/**
 * A value as canonical JSON (RFC 8785): names sorted by UTF-16 code units, no white space, numbers and strings as in
 * ECMAScript. Equal values give equal bytes.
 * @throws TypeError for values that JSON cannot represent
 */
export function canonicalJson(value: unknown): string {
  if (value === null || typeof value === 'boolean' || typeof value === 'string') return JSON.stringify(value);
  if (typeof value === 'number') {
    if (!Number.isFinite(value)) throw new TypeError(`canonical JSON cannot represent ${value}`);
    return JSON.stringify(value);
  }
  if (Array.isArray(value)) return `[${value.map((v) => canonicalJson(v ?? null)).join(',')}]`;
  if (typeof value !== 'object') throw new TypeError(`canonical JSON cannot represent a ${typeof value}`);
  const members = Object.entries(value)
    .filter(([, v]) => v !== undefined)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, v]) => `${JSON.stringify(name)}:${canonicalJson(v)}`);
  return `{${members.join(',')}}`;
}

/** The part of an audit event that the chain covers: all but its position and hash, which follow from the chain. */
export type ChainedEvent = Omit<AuditEvent, 'seq' | 'hash' | 'action' | 'actor' | 'subject'> & {
  action: string;
  actor: { type: string; id: string | null; name: string };
  subject: { type: string; id: string; name: string } | null;
};

/**
 * The bytes of an event that are hashed: canonical JSON of `v` (1, the version of this form) and the fields below;
 * absent ones are null. `at` is UTC in RFC 3339 with exactly three decimals.
 */
export function canonicalEvent(event: ChainedEvent): string {
  const { id, at, actor, action, tokenId, projectId, subject, ip, userAgent, requestId, details } = event;
  // Written out, in the order of RFC 8785: sealing and verifying spend most of their time here.
  return (
    `{"action":${text(action)},"actor":${party(actor)},"at":${text(at)},"details":${canonicalJson(details)},` +
    `"id":${text(id)},"ip":${text(ip)},"projectId":${text(projectId)},"requestId":${text(requestId)},` +
    `"subject":${subject ? party(subject) : 'null'},"tokenId":${text(tokenId)},"userAgent":${text(userAgent)},"v":1}`
  );
}

const text = (value: string | null): string => JSON.stringify(value ?? null);
const party = ({ id, name, type }: { id: string | null; name: string; type: string }): string =>
  `{"id":${text(id)},"name":${text(name)},"type":${text(type)}}`;

/** The hash of an event in the chain: SHA-256 over the 32 bytes of the previous hash and the canonical event. Hex. */
export function chainHash(previousHash: string, event: ChainedEvent): string {
  return hash('sha256', Buffer.concat([Buffer.from(previousHash, 'hex'), Buffer.from(canonicalEvent(event))]), 'hex');
}

/**
 * A signed statement about the chain. `sealed`: event `seq` has this hash. `retired`: likewise, and everything up to it
 * was removed by the retention rule, so that the chain is verified from `seq + 1` on.
 */
export const checkpointSchema = z.object({
  seq: z.int().min(0),
  hash: z.string().regex(/^[0-9a-f]{64}$/),
  at: z.iso.datetime(),
  kind: z.enum(['sealed', 'retired']),
  /** See `signerOf`. */
  keyId: z.string().regex(/^[0-9a-f]{16}$/),
  /** Ed25519 (RFC 8032), base64url. */
  signature: z.base64url(),
});
export type Checkpoint = z.infer<typeof checkpointSchema>;

/** The id of a public signing key: the first 16 hex digits of the SHA-256 of its SPKI form. */
export function signerOf(key: KeyObject): string {
  const spki = (key.type === 'private' ? createPublicKey(key) : key).export({ type: 'spki', format: 'der' });
  return createHash('sha256').update(spki).digest('hex').slice(0, 16);
}

/** The same for a key in SPKI form, base64; sixteen zeros for a text that is not a key. */
export function signerOfSpki(spki: string): string {
  try {
    return signerOf(publicKeyOf(spki));
  } catch {
    return UNKNOWN_SIGNER;
  }
}
const UNKNOWN_SIGNER = '0'.repeat(16);

const statement = (c: Omit<Checkpoint, 'signature'>) =>
  Buffer.from(
    `latchkey audit checkpoint\n${canonicalJson({ v: 1, seq: c.seq, hash: c.hash, at: c.at, kind: c.kind, keyId: c.keyId })}`,
  );

/** @param key Ed25519, private */
export function signCheckpoint(key: KeyObject, what: Pick<Checkpoint, 'seq' | 'hash' | 'at' | 'kind'>): Checkpoint {
  const unsigned = { seq: what.seq, hash: what.hash, at: what.at, kind: what.kind, keyId: signerOf(key) };
  return { ...unsigned, signature: sign(null, statement(unsigned), key).toString('base64url') };
}

export interface ChainVerdict {
  ok: boolean;
  /** Events whose position in the chain was verified. */
  events: number;
  /** Checkpoints whose signature and hash were verified. */
  checkpoints: number;
  firstBroken: Fault | null;
}

/** The first position that is not as it was sealed, and the evidence. */
export interface Fault {
  seq: number | null;
  reason: string;
}

/**
 * Verifies a chain as it is read, in constant memory. Pass the checkpoints and the links in the order of their `seq`, a
 * checkpoint after its link, then call `end`. Everything after the first fault is ignored, because it proves nothing.
 */
export class ChainProver {
  private readonly keys: Map<string, KeyObject>;
  private seq = 0;
  private hash = CHAIN_START;
  private started = false;
  private proven = 0;
  private signed = 0;
  private signedSeq = 0;
  private broken: Fault | null = null;

  /** @param keys trusted public keys; a checkpoint of any other is a fault */
  constructor(keys: readonly KeyObject[]) {
    this.keys = new Map(keys.map((key) => [signerOf(key), key]));
  }

  /** Adds a trusted key. */
  trust(key: KeyObject): void {
    this.keys.set(signerOf(key), key);
  }

  get failed(): boolean {
    return this.broken !== null;
  }

  /** The start of a chain whose head was retired: the newest `retired` checkpoint, before any link. */
  startFrom(checkpoint: Checkpoint): void {
    if (this.broken) return;
    const notRetired = 'the chain begins at a checkpoint that is not of kind `retired`';
    this.broken =
      checkpoint.kind === 'retired' ? this.signatureFault(checkpoint) : { seq: checkpoint.seq, reason: notRetired };
    if (this.broken) return;
    this.seq = checkpoint.seq;
    this.hash = checkpoint.hash;
    this.signedSeq = checkpoint.seq;
    this.signed++;
  }

  /** @param event null when the link exists and its event does not */
  link(seq: number, hash: string, event: ChainedEvent | null): void {
    if (this.broken) return;
    this.started = true;
    this.broken = this.linkFault(seq, hash, event);
    if (this.broken) return;
    this.seq = seq;
    this.hash = hash;
    this.proven++;
  }

  checkpoint(checkpoint: Checkpoint): void {
    if (this.broken) return;
    this.broken = this.signatureFault(checkpoint) ?? this.checkpointFault(checkpoint);
    if (this.broken) return;
    this.signedSeq = checkpoint.seq;
    this.signed++;
  }

  /**
   * A checkpoint kept elsewhere (a log, a file): the chain must reach it and agree with it.
   * @param hashAt the chain's hash at its position, after all links; undefined when that position is retired
   */
  outside(checkpoint: Checkpoint, hashAt: string | undefined): void {
    if (this.broken) return;
    this.broken = this.signatureFault(checkpoint);
    if (this.broken) return;
    if (checkpoint.seq > this.seq) this.broken = this.cutTail(checkpoint.seq, 'a checkpoint kept outside the database');
    else if (hashAt !== undefined && hashAt !== checkpoint.hash)
      this.fail(
        checkpoint.seq,
        `the chain at ${checkpoint.seq} is not the one in a checkpoint kept outside the database`,
      );
  }

  /** Records a fault found outside the chain. */
  fail(seq: number | null, reason: string): void {
    this.broken ??= { seq, reason };
  }

  end(): ChainVerdict {
    return { ok: !this.broken, events: this.proven, checkpoints: this.signed, firstBroken: this.broken };
  }

  /** Position and hash of the last verified event. */
  get head(): { seq: number; hash: string; started: boolean } {
    return { seq: this.seq, hash: this.hash, started: this.started };
  }

  private linkFault(seq: number, hash: string, event: ChainedEvent | null): Fault | null {
    const expected = this.seq + 1;
    if (seq > expected) {
      const gap = seq - 1 === expected ? `event ${expected} is` : `events ${expected} to ${seq - 1} are`;
      return { seq: expected, reason: `${gap} missing: deleted from the chain, or left out of this export` };
    }
    if (seq < expected) return { seq, reason: `position ${seq} occurs twice` };
    if (!event) return { seq, reason: `the event at ${seq} was deleted; its link is still there` };
    if (chainHash(this.hash, event) === hash) return null;
    return {
      seq,
      reason: `the event at ${seq} is not the one that was sealed there: it was edited, replaced, or moved`,
    };
  }

  private checkpointFault({ seq, hash }: Checkpoint): Fault | null {
    if (seq > this.seq) return this.cutTail(seq, 'a signed checkpoint');
    if (seq < this.seq) return { seq, reason: `the checkpoint at ${seq} follows the event at ${this.seq}` };
    if (hash === this.hash) return null;
    const since = `between ${this.signedSeq + 1} and ${seq}`;
    return {
      seq: this.signedSeq + 1,
      reason: `the chain at ${seq} is not the one that was signed there: ${since} events were replaced and their hashes made anew`,
    };
  }

  private cutTail(reached: number, source: string): Fault {
    const cut = `the chain ends at ${this.seq}, but ${source} proves that it reached ${reached}: the tail was cut`;
    return { seq: this.seq + 1, reason: cut };
  }

  private signatureFault(checkpoint: Checkpoint): Fault | null {
    const { seq, keyId } = checkpoint;
    const key = this.keys.get(keyId);
    if (!key) return { seq, reason: `the checkpoint at ${seq} is signed by ${keyId}, which is no trusted key` };
    if (verify(null, statement(checkpoint), key, Buffer.from(checkpoint.signature, 'base64url'))) return null;
    return { seq, reason: `the checkpoint at ${seq} is forged: its signature is wrong` };
  }
}

/** A checkpoint with the key that signed it (SPKI in base64), as in an export. */
export const exportedCheckpointSchema = checkpointSchema.extend({ publicKey: z.base64() });
export type ExportedCheckpoint = z.infer<typeof exportedCheckpointSchema>;

/**
 * A line of an NDJSON export: the event, and the checkpoints at its position, if any. The first line of a chain whose head
 * was retired has the `retired` checkpoint of the previous position.
 */
export const exportLineSchema = auditEventSchema.extend({
  // Closed lists grow: an export of a newer service can be verified too.
  action: z.string(),
  actor: z.object({ type: z.string(), id: z.string().nullable(), name: z.string() }),
  subject: z.object({ type: z.string(), id: z.string(), name: z.string() }).nullable(),
  checkpoints: z.array(exportedCheckpointSchema).optional(),
});
export type ExportLine = z.infer<typeof exportLineSchema>;

export interface ExportVerdict extends ChainVerdict {
  /** Ids of the keys that signed the export's checkpoints: compare them with the ids that the service logs at start. */
  signers: string[];
  /** The last event that a checkpoint covers; later events are chained but not signed. */
  signedThrough: number;
}

/**
 * Verifies an NDJSON export (`GET /v1/audit/export` without filters) offline.
 * @param lines the file's lines
 * @param keys public keys to trust; without any, the first one in the export is trusted, and is listed in `signers`
 * @param outside checkpoints kept elsewhere (a log, another export): the export must reach them and agree with them
 */
export async function proveExport(
  lines: AsyncIterable<string> | Iterable<string>,
  keys: readonly KeyObject[] = [],
  outside: readonly Checkpoint[] = [],
): Promise<ExportVerdict> {
  const prover = new ChainProver(keys);
  const signers = new Set<string>();
  const hashAt = new Map(outside.map((c) => [c.seq, undefined as string | undefined]));
  let signedThrough = 0;
  let number = 0;
  for await (const text of lines) {
    number++;
    if (!text.trim()) continue;
    const line = parseLine(text);
    if (!line) {
      prover.fail(prover.head.seq + 1, `line ${number} of the export is not an audit event`);
      break;
    }
    const { seq, hash, checkpoints = [], ...event } = line;
    if (seq === null || hash === null) continue; // not sealed when it was exported: nothing to verify
    for (const { publicKey, ...checkpoint } of checkpoints) {
      if (keys.length === 0 && signers.size === 0 && signerOfSpki(publicKey) !== UNKNOWN_SIGNER)
        prover.trust(publicKeyOf(publicKey));
      signers.add(checkpoint.keyId);
      if (checkpoint.seq < seq && !prover.head.started) prover.startFrom(checkpoint);
    }
    prover.link(seq, hash, event);
    if (hashAt.has(seq)) hashAt.set(seq, hash);
    for (const { publicKey: _, ...checkpoint } of checkpoints) if (checkpoint.seq >= seq) prover.checkpoint(checkpoint);
    if (prover.failed) break;
    if (checkpoints.length > 0) signedThrough = seq;
  }
  for (const checkpoint of outside) prover.outside(checkpoint, hashAt.get(checkpoint.seq));
  return { ...prover.end(), signers: [...signers], signedThrough };
}

/** @param spki base64 of the key's SPKI form */
export function publicKeyOf(spki: string): KeyObject {
  return createPublicKey({ key: Buffer.from(spki, 'base64'), format: 'der', type: 'spki' });
}

function parseLine(text: string): ExportLine | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined; // the caller reports the line
  }
  return exportLineSchema.safeParse(value).data;
}
