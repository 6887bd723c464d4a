import { createHmac } from 'node:crypto';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { newId } from '@latchkey/runtime';
import { ATTEMPTS_MAX, deliverNotices } from '../src/notices/deliver-notices.job.js';
import { followAudit } from '../src/notices/follow-audit.job.js';
import { type NoticeInput, noticeEmailOf } from '../src/notices/notice-email.js';
import { noticeExpiring } from '../src/notices/notice-expiring.job.js';
import { warnIdle } from '../src/notices/warn-idle.job.js';
import { drainUsage } from '../src/usage/drain-usage.job.js';
import { postWebhook } from '../src/webhooks/webhook.service.js';
import { type Mailbox, mailbox, type Receiver, receiver, WEBHOOK_SECRET } from './receivers.js';
import { batch, line, World } from './world.js';

const DAY_MS = 86_400_000;
let world: World;
let mail: Mailbox;
let hook: Receiver;
let settings: Record<string, string>;
beforeEach(async () => {
  [world, mail, hook] = await Promise.all([World.start(), mailbox(), receiver()]);
  settings = {
    SMTP_URL: mail.url,
    PUBLIC_URL: 'https://tokens.example.test',
    NOTICE_WEBHOOK_URL: hook.url,
    NOTICE_WEBHOOK_SECRET: WEBHOOK_SECRET,
  };
});
afterEach(async () => {
  for (const one of [mail, hook, world]) await one[Symbol.asyncDispose]();
});

const kinds = async (token: string) =>
  (await world.database.query('SELECT kind FROM notices WHERE token_id = $1 ORDER BY kind', [token])).map(
    (r) => r['kind'],
  );
const deliver = () => world.run(deliverNotices, settings);
/** Makes retries due now. */
const later = () => world.database.query("UPDATE notice_deliveries SET next_at = now() WHERE state = 'due'");

let seq = 0;
/** A sealed audit event, as the token-service writes it. */
async function sealed(
  action: string,
  token: string,
  actor: { id: string } | null,
  details: object = {},
): Promise<void> {
  const id = newId();
  const at = new Date();
  await world.database.query(
    `INSERT INTO audit_events (id, at, actor_type, actor_id, actor_name, action, token_id, details)
     VALUES ($1, $2, $3, $4, 'Grace', $5, $6, $7)`,
    [id, at, actor ? 'user' : 'system', actor?.id ?? null, action, token, details],
  );
  await world.database.query(
    `INSERT INTO audit_links (seq, event_id, event_at, hash)
     SELECT coalesce(max(seq), 0) + 1, $1, $2, $3 FROM audit_links`,
    [id, at, Buffer.alloc(32, ++seq)],
  );
}

test('notifies the owner by email and webhook 30, 7 and 1 days before a token expires, each once', async () => {
  const person = await world.person();
  const createdAt = new Date(Date.now() - 90 * DAY_MS);
  await world.run(noticeExpiring, settings); // the first run
  const at = (days: number) =>
    world.token(person, { createdAt, expiresAt: new Date(Date.now() + days * DAY_MS), name: `in ${days}` });
  const [far, month, week, day] = [await at(31), await at(30), await at(7), await at(1)];
  // As if the last scan was an hour ago.
  await world.database.query("UPDATE notice_marks SET at = at - interval '1 hour'");
  for (let i = 0; i < 3; i++) await world.run(noticeExpiring, settings);
  expect(await kinds(far!)).toEqual([]);
  for (const token of [month, week, day]) expect(await kinds(token!)).toEqual(['expiring']);
  for (let i = 0; i < 3; i++) await deliver();
  expect(mail.received).toHaveLength(3);
  expect(hook.received).toHaveLength(3);
  expect(mail.received.every((l) => l.to[0] === person.email)).toBe(true);
  const texts = mail.received.map((email) => email.text.replace(/=\r\n/g, '')).join('\n');
  for (const words of ['expires in 30 days', 'expires in 7 days', 'expires within a day'])
    expect(texts).toContain(words);
  expect(mail.received[0]!.text).toMatch(/Content-Type: text\/plain/);
  expect(mail.received[0]!.text).toMatch(/Content-Type: text\/html/);
});

test('a token issued for a week causes no notice that it expires in a week', async () => {
  const person = await world.person();
  await world.run(noticeExpiring, settings);
  const token = await world.token(person, { expiresAt: new Date(Date.now() + 7 * DAY_MS) });
  await world.database.query("UPDATE notice_marks SET at = at - interval '1 hour'");
  await world.run(noticeExpiring, settings);
  expect(await kinds(token)).toEqual([]);
});

test('after a long stop only the nearest threshold causes a notice', async () => {
  const person = await world.person();
  await world.run(noticeExpiring, settings);
  const token = await world.token(person, {
    createdAt: new Date(Date.now() - 90 * DAY_MS),
    expiresAt: new Date(Date.now() + 0.5 * DAY_MS),
  });
  await world.database.query("UPDATE notice_marks SET at = at - interval '60 days'");
  await world.run(noticeExpiring, settings);
  const rows = await world.database.query("SELECT details ->> 'days' AS days FROM notices WHERE token_id = $1", [
    token,
  ]);
  expect(rows).toEqual([{ days: '1' }]);
});

test('notifies of tokens that expired, were exposed, or were revoked by somebody else, and not of what the owner did', async () => {
  const [owner, other] = [await world.person(), await world.person()];
  await world.run(followAudit, settings);
  const [expired, exposed, byOther, byOwner, overlap] = await Promise.all(
    Array.from({ length: 5 }, () => world.token(owner)),
  );
  await sealed('token.expired', expired!, null);
  await sealed('token.revoked', exposed!, null, { reason: 'exposed' });
  await sealed('token.revoked', byOther!, other, { reason: 'owner_left' });
  await sealed('token.revoked', byOwner!, owner, { reason: 'no_longer_needed' });
  await sealed('token.revoked', overlap!, null, { reason: 'superseded' });
  for (let i = 0; i < 2; i++) await world.run(followAudit, settings);
  for (let i = 0; i < 2; i++) await deliver();
  const types = hook.received.map((p) => (JSON.parse(p.body) as { type: string }).type);
  expect(types.sort()).toEqual(['token.expired', 'token.exposed', 'token.revoked']);
  expect(mail.received).toHaveLength(3);
  expect(await kinds(overlap!)).toEqual([]);
});

test('of tokens revoked with an exposed one, notifies of those it rotated, not of descendants and their successors', async () => {
  const owner = await world.person();
  await world.run(followAudit, settings);
  const [exposed, rotated, descendant, successor] = await Promise.all(
    Array.from({ length: 4 }, () => world.token(owner)),
  );
  await sealed('token.revoked', exposed!, null, { reason: 'exposed' });
  await sealed('token.revoked', rotated!, null, { reason: 'exposed', as: 'shown', shownTo: exposed });
  await sealed('token.revoked', descendant!, null, { reason: 'exposed', as: 'descendant', shownTo: exposed });
  await sealed('token.revoked', successor!, null, { reason: 'exposed', as: 'successor', shownTo: exposed });
  await world.run(followAudit, settings);
  const notices = await Promise.all([exposed, rotated, descendant, successor].map((token) => kinds(token!)));
  expect(notices).toEqual([['exposed'], ['exposed'], [], []]);
});

test('notifies the owner and every administrator of an expired or revoked token that was found in public', async () => {
  const owner = await world.person();
  const administrator = await world.person();
  await world.database.query("UPDATE users SET role = 'admin' WHERE id = $1", [administrator.id]);
  await world.run(followAudit, settings);
  const token = await world.token(owner);
  await sealed('token.reported', token, null, {});
  await world.run(followAudit, settings);
  const recipients = await world.database.query(
    `SELECT DISTINCT d.user_id FROM notice_deliveries d JOIN notices n ON n.id = d.notice_id
     JOIN users u ON u.id = d.user_id WHERE n.token_id = $1 AND u.id = ANY ($2)`,
    [token, [owner.id, administrator.id]],
  );
  expect(recipients.map((row) => row['user_id']).sort()).toEqual([owner.id, administrator.id].sort());
  expect(await kinds(token)).toEqual(['reported']);
});

test("a project token's notices go to every owner of the project, and to no one who is disabled", async () => {
  const owners = [await world.person(), await world.person(), await world.person({ disabled: true })];
  const token = await world.token(await world.project(owners));
  await world.run(followAudit, settings);
  await sealed('token.expired', token, null);
  await world.run(followAudit, settings);
  await deliver();
  expect(mail.received.flatMap((l) => l.to).sort()).toEqual([owners[0]!.email, owners[1]!.email].sort());
});

test('notifies of a use from a new address, but not of the first use, and of a use after rotation, once', async () => {
  const person = await world.person();
  const token = await world.token(person);
  const replaced = await world.token(person, { revokedAt: new Date(Date.now() - 60_000), rotatedTo: token });
  const use = async (ip: string, more: object = {}) => {
    await world.send(world.signed(batch([line(token, { ip, ...more })])));
    await world.run(drainUsage, settings);
  };
  await use('192.0.2.1');
  expect(await kinds(token)).toEqual([]);
  await use('192.0.2.1', { userAgent: 'another' });
  expect(await kinds(token)).toEqual([]);
  await use('198.51.100.9');
  await use('198.51.100.9', { userAgent: 'another' });
  expect(await kinds(token)).toEqual(['new_address']);
  for (let i = 0; i < 2; i++) {
    await world.send(world.signed(batch([line(replaced, { status: 'revoked', ip: '203.0.113.5' })])));
    await world.run(drainUsage, settings);
  }
  expect(await kinds(replaced)).toEqual(['used_after_rotation']);
  await deliver();
  expect(hook.received.map((p) => JSON.parse(p.body).type).sort()).toEqual([
    'token.new_address',
    'token.used_after_rotation',
  ]);
});

test('warns once before the policy revokes an idle token', async () => {
  const person = await world.person();
  const ago = (days: number) => new Date(Date.now() - days * DAY_MS);
  const [soon, later] = [
    await world.token(person, { createdAt: ago(25) }),
    await world.token(person, { createdAt: ago(10) }),
  ];
  const used = await world.token(person, { createdAt: ago(200) });
  await world.database.query('INSERT INTO token_usage (token_id, last_used_at, usage_count) VALUES ($1, $2, 1)', [
    used,
    ago(24),
  ]);
  await world.run(warnIdle, settings);
  expect(await world.database.query('SELECT * FROM notices')).toEqual([]); // there is no policy
  await world.database.query('UPDATE policy SET idle_days = 30');
  for (let i = 0; i < 2; i++) await world.run(warnIdle, settings);
  expect([await kinds(soon!), await kinds(used), await kinds(later!)]).toEqual([['idle'], ['idle'], []]);
  await deliver();
  expect(mail.received).toHaveLength(2);
  expect(hook.received.map((p) => JSON.parse(p.body).data.details.revokedOn)).toContain(
    new Date(Date.now() + 5 * DAY_MS).toISOString().slice(0, 10),
  );
});

test('sends a person only the kinds of notices they chose, by the channels they chose', async () => {
  const person = await world.person();
  await world.database.query(
    "INSERT INTO notice_choices (user_id, kind, email, webhook) VALUES ($1, 'expired', false, true), ($1, 'exposed', false, false)",
    [person.id],
  );
  const [expired, exposed] = [await world.token(person), await world.token(person)];
  await world.run(followAudit, settings);
  await sealed('token.expired', expired!, null);
  await sealed('token.revoked', exposed!, null, { reason: 'exposed' });
  await world.run(followAudit, settings);
  await deliver();
  expect(mail.received).toHaveLength(0);
  expect(hook.received.map((p) => JSON.parse(p.body).type)).toEqual(['token.expired']);
});

test('signs webhooks by Standard Webhooks, and retries with the same id until one is accepted', async () => {
  const token = await world.token(await world.person());
  await world.run(followAudit, settings);
  await sealed('token.expired', token, null);
  await world.run(followAudit, settings);
  hook.status = 500;
  await deliver();
  await deliver();
  expect(hook.received).toHaveLength(1); // the retry is not due yet
  hook.status = 204;
  await later();
  await deliver();
  await later();
  await deliver();
  expect(hook.received).toHaveLength(2);
  const [first, second] = hook.received as [(typeof hook.received)[0], (typeof hook.received)[0]];
  expect(second.id).toBe(first.id);
  const signature = createHmac('sha256', Buffer.from(WEBHOOK_SECRET.slice(6), 'base64'))
    .update(`${second.id}.${second.timestamp}.${second.body}`)
    .digest('base64');
  expect(second.signature).toBe(`v1,${signature}`);
  expect(JSON.parse(second.body).data.token).toMatchObject({ id: token, start: 'lk_pat_test' });
});

test('stops retrying an email when the mail server rejects its address for good, or after the last attempt', async () => {
  const token = await world.token(await world.person());
  await world.run(followAudit, settings);
  await sealed('token.expired', token, null);
  await world.run(followAudit, { ...settings, NOTICE_WEBHOOK_URL: '' });
  const state = async () =>
    (await world.database.query("SELECT state, last_error FROM notice_deliveries WHERE channel = 'email'"))[0];
  mail.rejectWith = 451;
  await deliver();
  expect(await state()).toEqual({ state: 'due', last_error: 'the mail server failed (451)' });
  await world.database.query('UPDATE notice_deliveries SET attempts = $1, next_at = now()', [ATTEMPTS_MAX - 1]);
  await deliver();
  expect(await state()).toMatchObject({ state: 'dead' });
  await world.database.query("UPDATE notice_deliveries SET state = 'due', attempts = 0, next_at = now()");
  mail.rejectWith = 550;
  await deliver();
  expect(await state()).toEqual({ state: 'dead', last_error: 'the mail server failed (550)' });
});

test('concurrent workers send a notice once', async () => {
  const person = await world.person();
  await world.run(followAudit, settings);
  for (let i = 0; i < 15; i++) await sealed('token.expired', await world.token(person), null);
  await world.run(followAudit, settings);
  await Promise.all([deliver(), deliver(), deliver()]);
  expect(mail.received).toHaveLength(15);
  expect(hook.received).toHaveLength(15);
});

test('names in an email add neither headers nor HTML', () => {
  const notice: NoticeInput = {
    id: newId(),
    kind: 'expired',
    at: new Date(),
    token: { id: newId(), name: 'a\r\nBcc: x@y.test <script>', start: 'lk_pat_abcd', kind: 'pat', project: null },
    person: { id: newId(), name: '<b>Eve</b>', email: 'eve@example.test' },
    details: {},
  };
  const email = noticeEmailOf(notice, 'https://tokens.example.test');
  expect(email.subject).not.toMatch(/[\r\n]/);
  expect(email.html).not.toContain('<script>');
  expect(email.html).not.toContain('<b>');
  expect(email.text).toContain('https://tokens.example.test/#/api-tokens');
});

test('a hostile name adds no recipients and no header lines to an email', async () => {
  const person = await world.person();
  await world.database.query('UPDATE users SET name = $2 WHERE id = $1', [
    person.id,
    'Eve" <eve@evil.test>\r\nBcc: victim@evil.test\r\n\r\n<b>',
  ]);
  const name = 'x\r\nBcc: other@evil.test\r\n\r\n<img src=https://evil.test/>';
  const token = await world.token(person, { name });
  await world.run(followAudit, settings);
  await sealed('token.expired', token, null);
  await world.run(followAudit, settings);
  await deliver();
  const [email] = mail.received;
  expect(email!.to).toEqual([person.email]);
  const [head, ...body] = email!.text.split('\r\n\r\n') as [string, ...string[]];
  expect(head).not.toMatch(/^Bcc:/im);
  expect(head.match(/^To:/gim)).toHaveLength(1);
  const html = body.join('\n').replace(/=\r\n/g, '').split('text/html')[1]!;
  expect(html).toContain('&lt;img');
  expect(html).not.toContain('<img');
});

test('a webhook does not follow redirects: nothing is posted to their target', async () => {
  const target = await receiver();
  const redirecting = createServer((_req, res) => res.writeHead(307, { location: target.url }).end());
  await new Promise<void>((resolve) => redirecting.listen(0, '127.0.0.1', resolve));
  try {
    const url = `http://127.0.0.1:${(redirecting.address() as AddressInfo).port}/`;
    const outcome = await postWebhook({ url, secret: WEBHOOK_SECRET }, 'id', {}, new AbortController().signal);
    expect(outcome).toEqual({ ok: false, gone: false, reason: 'the receiver returned 307' });
    expect(target.received).toHaveLength(0);
  } finally {
    redirecting.closeAllConnections();
    redirecting.close();
    await target[Symbol.asyncDispose]();
  }
});
