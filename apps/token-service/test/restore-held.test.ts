import { cpSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { Restore } from '@latchkey/contracts';
import { waitFor } from '@latchkey/testing';
import { issue, type World } from './harness.js';
import {
  before,
  checkOf,
  closing,
  entriesIn,
  eventsOf,
  isBack,
  isMarked,
  isRestored,
  narrow,
  newFolder,
  putBack,
  type Stage,
  setUp,
  signInAt,
  systemOf,
} from './restoring.js';

describe('without a ledger that shows that nothing is missing', () => {
  /** @param meddle with the ledger while the folder is put back @returns the service that was started then */
  async function restored(meddle: (stage: Stage, ledgerThen: string) => Record<string, string>) {
    const stage = await setUp();
    const { server, w } = stage;
    const was = await before(stage);
    await isMarked(stage);
    await server.stop();
    const copy = server.copy();
    const ledgerThen = newFolder();
    cpSync(stage.ledger, ledgerThen, { recursive: true });
    await server.start();
    await isBack(w, was.kept.secret);
    await narrow(stage, was);
    await w.service.stop();
    await putBack(server, copy);
    const env = meddle(stage, ledgerThen);
    const second = await w.another(env);
    await waitFor(async () => (await server.query('SELECT 1 FROM restores WHERE settled_at IS NULL')).length > 0, {
      timeoutMs: 20_000,
    });
    await waitFor(() => second && checkOf(w, was.kept.secret, second).then((status) => status === 503));
    return { ...stage, was, second };
  }

  const replaced = (with_?: (folder: string, then: string) => void) => (_: Stage, then: string) => {
    const folder = newFolder();
    with_?.(folder, then);
    return { LEDGER_DIR: folder };
  };

  it.each([
    ['the ledger is missing', 'ledger_missing', replaced()],
    [
      'the ledger is a copy of an older one',
      'ledger_copied',
      replaced((folder, then) => cpSync(then, folder, { recursive: true })),
    ],
  ] as const)(
    'tokens from before are 503 restored until an administrator decides, when %s',
    async (_, reason, meddle) => {
      const { w, was, second } = await restored(meddle);
      for (const { secret } of [...was.tokens, was.kept]) {
        const response = await w.bearer(secret, second).call<{ code: string }>('GET /v1/tokens/self');
        expect([response.status, response.body.code]).toEqual([503, 'restored']);
      }
      // Sessions from before are not accepted either; an administrator signs in again and decides.
      expect((await w.as({ cookie: was.changer.cookie! }, second).call('GET /v1/session')).status).toBe(401);
      const admin = await signInAt(w, second);
      expect((await systemOf(admin)).restore).toMatchObject({ state: 'unsettled', reason, choice: null });
      const fresh = await issue(admin);
      expect(await checkOf(w, fresh.secret, second)).toBe(200);
      const settled = await admin.call<{ effective: boolean; restore: Restore }>('POST /v1/system/restore/settle', {
        body: { choice: 'revoke' },
      });
      expect(settled.body).toMatchObject({ effective: true, restore: { state: 'settled', choice: 'revoke' } });
      for (const { secret } of [...was.tokens, was.kept]) expect(await checkOf(w, secret, second)).toBe(401);
      expect(await checkOf(w, fresh.secret, second)).toBe(200);
      const body = { email: was.changer.user.email, password: 'correct horse battery staple' };
      expect((await w.as({}, second).call('POST /v1/session', { body })).status).toBe(401);
      expect((await admin.call('POST /v1/system/restore/settle', { body: { choice: 'accept' } })).status).toBe(409);
      expect(await eventsOf(admin, 'system.settled')).toHaveLength(1);
    },
  );

  it('what is held stays held over restarts of everything, until it is accepted', async () => {
    const LEDGER_DIR = newFolder();
    const { server, w, was, second } = await restored(() => ({ LEDGER_DIR }));
    await waitFor(async () => (await server.query('SELECT DISTINCT ledger FROM ledger_streams')).length === 2);
    await second.stop();
    await server.stop();
    await server.start();
    const third = await w.another({ LEDGER_DIR });
    const code = async (secret: string) =>
      (await w.bearer(secret, third).call<{ code: string }>('GET /v1/tokens/self')).body.code;
    await waitFor(async () => (await code(was.kept.secret)) === 'restored', { timeoutMs: 20_000 });
    for (const { secret } of was.tokens) expect(await code(secret)).toBe('restored');
    const admin = await signInAt(w, third);
    const settled = await admin.call<{ effective: boolean }>('POST /v1/system/restore/settle', {
      body: { choice: 'accept' },
    });
    expect(settled.body.effective).toBe(true);
    expect(await checkOf(w, was.kept.secret, third)).toBe(200);
    // A restart is a plain one from here on.
    await third.stop();
    const fourth = await w.another({ LEDGER_DIR });
    expect(await checkOf(w, was.kept.secret, fourth)).toBe(200);
  });

  it('one that was removed from the settings is missed once: what was decided without it holds for later starts', async () => {
    const stage = await setUp();
    const { server, w, admin } = stage;
    const kept = await issue(admin);
    await isMarked(stage);
    await w.service.stop();
    await server.stop();
    await server.start();
    const second = await w.another({ LEDGER_DIR: '' });
    await waitFor(() => isRestored(w, kept.secret, second), { timeoutMs: 20_000 });
    const again = await signInAt(w, second);
    const body = { choice: 'accept' };
    expect((await again.call('POST /v1/system/restore/settle', { body })).status).toBe(200);
    await server.stop();
    await server.start();
    await isBack(w, kept.secret, second);
    expect(await checkOf(w, kept.secret, second)).toBe(200);
    expect(await server.query('SELECT 1 FROM restores')).toHaveLength(1);
    // One that is kept again goes on where it ended.
    const missed = await issue(again);
    expect((await again.call(`POST /v1/tokens/${missed.id}/revoke`, { body: {} })).status).toBe(200);
    await second.stop();
    await w.another();
    await waitFor(() => entriesIn(stage.ledger).includes(missed.id));
  });

  it('a replica without one waits for a replica whose ledger vouches', async () => {
    const stage = await setUp();
    const { server, w, admin } = stage;
    const kept = await issue(admin);
    const second = await w.another({ LEDGER_DIR: '' });
    await isMarked(stage);
    await server.stop();
    await server.start();
    await isBack(w, kept.secret, second);
    expect(await checkOf(w, kept.secret, second)).toBe(200);
    expect(await server.query('SELECT 1 FROM restores')).toEqual([]);
    expect(await server.query('SELECT 1 FROM ledger_streams')).not.toEqual([]);
  });

  /** A token to keep and one to revoke, and a copy of the data folder from before that. The service has stopped. */
  async function twoTokens() {
    const stage = await setUp();
    const { server, w, admin } = stage;
    const [kept, revoked] = [await issue(admin), await issue(admin)];
    await isMarked(stage);
    await w.service.stop();
    await server.stop();
    const copy = server.copy();
    await server.start();
    /** @returns what the receipt says of the ledger */
    const revoke = async (at: World['service'], person = w.as({ cookie: admin.cookie! }, at)) => {
      const target = `POST /v1/tokens/${revoked.id}/revoke`;
      const { body } = await person.call<{ receipt: { ledger: string } }>(target, { body: {} });
      return body.receipt.ledger;
    };
    return { ...stage, kept, revoked, copy, revoke };
  }

  /** Moves the ledgers away, as when their disk is not there. @returns puts them back */
  function away(ledger: string, instead?: 'a file'): () => void {
    const elsewhere = `${ledger}-elsewhere`;
    closing.push(() => rmSync(elsewhere, { recursive: true, force: true }));
    renameSync(ledger, elsewhere);
    if (instead) writeFileSync(ledger, 'a folder that cannot be read');
    return () => {
      rmSync(ledger, { recursive: true });
      renameSync(elsewhere, ledger);
    };
  }

  it('what is held is settled by a ledger that can be read later', async () => {
    const { server, w, ledger, kept, revoked, copy, revoke } = await twoTokens();
    const second = await w.another();
    expect(await revoke(second)).toBe('written');
    await second.stop();
    await putBack(server, copy);
    const back = away(ledger, 'a file');
    const third = await w.another();
    await waitFor(() => isRestored(w, revoked.secret, third), { timeoutMs: 20_000 });
    back();
    await waitFor(async () => (await checkOf(w, kept.secret, third)) === 200, { timeoutMs: 40_000 });
    expect(await checkOf(w, revoked.secret, third)).toBe(401);
    expect(await server.query('SELECT choice FROM restores')).toEqual([{ choice: 'ledger' }]);
  });

  it('a mark does not move past what could not be read, while the service goes on', async () => {
    const { server, w, ledger, kept, revoked, copy, revoke } = await twoTokens();
    const second = await w.another();
    expect(await revoke(second)).toBe('written');
    await server.stop();
    server.putBack(copy);
    const back = away(ledger, 'a file');
    await server.start();
    await waitFor(() => isRestored(w, revoked.secret, second), { timeoutMs: 20_000 });
    back();
    await waitFor(async () => (await checkOf(w, kept.secret, second)) === 200, { timeoutMs: 40_000 });
    expect(await checkOf(w, revoked.secret, second)).toBe(401);
  });

  it('what a disk failed to keep when its history ended is still missed when all has started again', async () => {
    const { server, w, ledger, kept, revoked, copy, revoke } = await twoTokens();
    const earlier = await w.another();
    await isBack(w, kept.secret, earlier);
    await earlier.stop();
    const back = away(ledger, 'a file');
    const second = await w.another();
    expect(await revoke(second)).toBe('failed');
    await putBack(server, copy);
    await waitFor(() => isRestored(w, revoked.secret, second), { timeoutMs: 20_000 });
    await second.stop();
    back();
    const third = await w.another();
    await waitFor(async () => (await systemOf(await signInAt(w, third))).ledger.state === 'written');
    for (const { secret } of [kept, revoked]) expect(await isRestored(w, secret, third)).toBe(true);
    // Nor does an empty disk in its place, after another start of PostgreSQL, make it a plain one.
    await third.stop();
    await server.stop();
    await server.start();
    const fourth = await w.another({ LEDGER_DIR: newFolder() });
    await waitFor(() => isRestored(w, kept.secret, fourth), { timeoutMs: 20_000 });
    expect(await isRestored(w, revoked.secret, fourth)).toBe(true);
  });

  it('a backup from before its ledger was begun is for an administrator to decide, though the ledger is whole', async () => {
    const stage = await setUp();
    const { server, w, admin } = stage;
    const kept = await issue(admin);
    await isMarked(stage);
    await w.service.stop();
    // As a dump of before version 0.2 is, once it was migrated.
    await server.query('UPDATE invalidation_log SET settled_history = NULL, settled_incarnation = NULL');
    await server.query('DELETE FROM ledger_streams');
    await server.stop();
    await server.start();
    const second = await w.another();
    await waitFor(() => isRestored(w, kept.secret, second), { timeoutMs: 20_000 });
  });

  it('a ledger beside its own that cannot be read is for an administrator to decide, once', async () => {
    const stage = await setUp();
    const { server, w, admin, ledger } = stage;
    const kept = await issue(admin);
    await isMarked(stage);
    await w.service.stop();
    await server.stop();
    mkdirSync(path.join(ledger, '7518000000000000001-latchkey', 'ledger'), { recursive: true });
    await server.start();
    const second = await w.another();
    await waitFor(() => isRestored(w, kept.secret, second), { timeoutMs: 20_000 });
    const again = await signInAt(w, second);
    expect((await systemOf(again)).restore).toMatchObject({ state: 'unsettled', reason: 'ledger_uncertain' });
    const body = { choice: 'accept' };
    expect((await again.call('POST /v1/system/restore/settle', { body })).status).toBe(200);
    await second.stop();
    await server.stop();
    await server.start();
    const third = await w.another();
    await isBack(w, kept.secret, third);
    expect(await checkOf(w, kept.secret, third)).toBe(200);
  });

  it('what was revoked before the disk of the ledger was mounted is written to that ledger too', async () => {
    const { w, ledger, kept, revoked, revoke } = await twoTokens();
    const back = away(ledger);
    const late = await w.another();
    await waitFor(() => isRestored(w, kept.secret, late), { timeoutMs: 20_000 });
    expect(await revoke(late, await signInAt(w, late))).toBe('written');
    back();
    await waitFor(() => entriesIn(ledger).includes(revoked.id), { timeoutMs: 40_000 });
  });
});
