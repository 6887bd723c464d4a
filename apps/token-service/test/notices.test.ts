import { NOTICE_KINDS, type NoticeChoices } from '@latchkey/contracts';
import { issue, type World, world } from './harness.js';

let w: World;
beforeAll(async () => {
  w = await world();
});
afterAll(() => w.close());

const path = '/v1/notices/choices';
const off = (body: NoticeChoices) => body.items.filter((i) => !i.email || !i.webhook).map((i) => i.kind);

test('a person gets every notice until they choose otherwise, and only their own choice changes', async () => {
  const [ada, eve] = [await w.member(), await w.member()];
  const before = await ada.call<NoticeChoices>(`GET ${path}`);
  expect(before.body.items.map((i) => i.kind)).toEqual(Object.keys(NOTICE_KINDS));
  expect(off(before.body)).toEqual([]);
  const chosen = await ada.call<NoticeChoices>(`PUT ${path}`, {
    body: { items: [{ kind: 'expiring', email: false, webhook: true }] },
  });
  expect(chosen.status).toBe(200);
  expect(off(chosen.body)).toEqual(['expiring']);
  await ada.call(`PUT ${path}`, { body: { items: [{ kind: 'idle', email: false, webhook: false }] } });
  expect(off((await ada.call<NoticeChoices>(`GET ${path}`)).body)).toEqual(['expiring', 'idle']);
  expect(off((await eve.call<NoticeChoices>(`GET ${path}`)).body)).toEqual([]);
});

test('a token cannot silence the notices about itself', async () => {
  const ada = await w.member();
  const { secret } = await issue(ada, { scopes: ['tokens:write'] });
  const body = { items: [{ kind: 'exposed', email: false, webhook: false }] };
  expect((await w.bearer(secret).call(`PUT ${path}`, { body })).status).toBe(403);
  expect((await w.bearer(secret).call(`GET ${path}`)).status).toBe(200);
});

test('notice choices with an unknown kind, or a kind named twice, are rejected', async () => {
  const ada = await w.member();
  const choice = { email: true, webhook: true };
  for (const items of [
    [{ kind: 'weather', ...choice }],
    [],
    [
      { kind: 'idle', ...choice },
      { kind: 'idle', ...choice },
    ],
  ])
    expect((await ada.call(`PUT ${path}`, { body: { items } })).status).toBe(400);
});
