import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import path from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { auditEventSchema } from '@latchkey/contracts';
import { newId } from '@latchkey/runtime';
import { deliverAudit } from '../src/audit/deliver-audit.job.js';
import { pruneUsage } from '../src/usage/prune-usage.job.js';
import { type Receiver, receiver, WEBHOOK_SECRET } from './receivers.js';
import { World } from './world.js';

let world: World;
let siem: Receiver;
let settings: Record<string, string>;
beforeEach(async () => {
  [world, siem] = await Promise.all([World.start(), receiver()]);
  settings = { SIEM_WEBHOOK_URL: siem.url, SIEM_WEBHOOK_SECRET: WEBHOOK_SECRET, SIEM_ATTEMPTS_MAX: '3' };
});
afterEach(async () => {
  await siem[Symbol.asyncDispose]();
  await world[Symbol.asyncDispose]();
});

async function seal(count: number): Promise<void> {
  const ids = Array.from({ length: count }, () => newId());
  await world.database.query(
    `WITH e AS (
       INSERT INTO audit_events (id, at, actor_type, actor_name, action)
       SELECT id, now(), 'system', 'system', 'token.issued' FROM unnest($1::uuid[]) AS id RETURNING id, at)
     INSERT INTO audit_links (seq, event_id, event_at, hash)
     SELECT row_number() OVER (ORDER BY id) + (SELECT coalesce(max(seq), 0) FROM audit_links), id, at, sha256(id::text::bytea) FROM e`,
    [ids],
  );
}
const deliver = () => world.run(deliverAudit, settings);
const later = () => world.database.query("UPDATE siem_batches SET next_at = now() WHERE state = 'due'");
const seqs = () =>
  siem.received.flatMap((p) => (JSON.parse(p.body) as { events: { seq: number }[] }).events.map((e) => e.seq));
const upTo = (n: number) => Array.from({ length: n }, (_, i) => i + 1);

test('posts every sealed event once, in the order of the chain, signed', async () => {
  await seal(250);
  await deliver();
  await seal(30);
  await deliver();
  await deliver();
  expect(seqs()).toEqual(upTo(280));
  expect(siem.received[0]!.signature).toMatch(/^v1,/);
  const [event] = (JSON.parse(siem.received[0]!.body) as { events: Record<string, unknown>[] }).events;
  expect(auditEventSchema.safeParse(event).error).toBeUndefined();
  expect(event).toMatchObject({ seq: 1, action: 'token.issued', hash: expect.stringMatching(/^[0-9a-f]{64}$/) });
});

test('keeps the order while the receiver fails: a retry has the same id, and nothing overtakes it', async () => {
  await seal(150);
  siem.status = 503;
  await deliver();
  await seal(10);
  await deliver();
  siem.status = 200;
  await world.database.query("UPDATE siem_batches SET next_at = now() + interval '1 hour' WHERE state = 'due'");
  await deliver(); // not yet due
  expect(siem.received).toHaveLength(1);
  await later();
  await deliver();
  expect(siem.received[1]!.id).toBe(siem.received[0]!.id);
  expect(seqs().slice(100)).toEqual(upTo(160));
});

test('concurrent workers send each batch once and in order', async () => {
  await seal(1_000);
  await Promise.all([deliver(), deliver(), deliver()]);
  await deliver();
  expect(seqs()).toEqual(upTo(1_000));
});

test('a batch that fails too often becomes a dead letter, later ones are sent, and replay sends it again', async () => {
  await seal(100);
  siem.status = 400;
  for (let i = 0; i < 3; i++) {
    await deliver();
    await later();
  }
  siem.status = 200;
  await seal(20);
  await deliver();
  const sent = siem.received.length;
  expect(seqs().slice(-20)).toEqual(upTo(120).slice(100));
  await world.run(pruneUsage);
  const [dead] = await world.database.query(
    "SELECT from_seq::int, to_seq::int, last_error FROM siem_batches WHERE state = 'dead'",
  );
  expect(dead).toEqual({ from_seq: 1, to_seq: 100, last_error: 'the receiver returned 400' });
  await promisify(execFile)(process.execPath, [path.join(import.meta.dirname, '../dist/replay.js'), '1', '50'], {
    env: { PATH: process.env['PATH'], DATABASE_URL: world.environment()['DATABASE_URL'] },
  });
  await deliver();
  expect(siem.received).toHaveLength(sent + 1);
  expect(siem.received.at(-1)!.id).toBe('audit_1_100');
  await deliver();
  expect(siem.received).toHaveLength(sent + 1);
});

test('does nothing without a receiver', async () => {
  await seal(3);
  expect(await world.run(deliverAudit, {})).toBe(0);
  expect(await world.database.query('SELECT * FROM siem_batches')).toEqual([]);
});

test('a receiver that hangs does not delay a stop, and its batch waits for a retry', async () => {
  const silent = createServer(() => undefined);
  await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve));
  try {
    await seal(3);
    const url = `http://127.0.0.1:${(silent.address() as AddressInfo).port}/`;
    const stopping = new AbortController();
    const requested = once(silent, 'request');
    const step = deliverAudit.step({
      ...(await world.contextWith({ ...settings, SIEM_WEBHOOK_URL: url })),
      signal: stopping.signal,
    });
    await requested;
    stopping.abort();
    expect(await step).toEqual({ done: 0, more: false });
    expect(await world.database.query('SELECT state FROM siem_batches')).toEqual([{ state: 'due' }]);
  } finally {
    silent.closeAllConnections();
    silent.close();
  }
  await later();
  await deliver();
  expect(seqs()).toEqual(upTo(3));
});
