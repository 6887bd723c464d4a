import type { Logger } from '@latchkey/runtime';
import { UpstreamGroup, type UpstreamPool } from '../src/engine/index.js';
import {
  EJECTED_AFTER,
  EJECTED_MS,
  EJECTED_MS_MAX,
  HEALTHY_AFTER,
  UNHEALTHY_AFTER,
  UpstreamHealth,
} from '../src/engine/upstream-health.js';

function upstream(name = 'http://u') {
  const lines: string[] = [];
  const log = (level: string) => (_fields: object, text: string) => lines.push(`${level} ${text.split(':')[0]}`);
  const health = new UpstreamHealth(name, { info: log('info'), warn: log('warn') } as unknown as Logger);
  const fail = (nowMs: number, times = EJECTED_AFTER) => {
    for (let i = 0; i < times; i++) health.failed('ECONNREFUSED', nowMs);
  };
  return { health, lines, fail };
}

describe('one of several upstreams', () => {
  it('is ejected after failures in a row, and returns after its time, each logged once', () => {
    const { health, lines, fail } = upstream();
    fail(0, EJECTED_AFTER - 1);
    expect(health.isAvailable).toBe(true);
    fail(0, 1);
    expect(health.isAvailable).toBe(false);
    fail(1, 10);
    health.tick(EJECTED_MS - 1);
    expect(health.isAvailable).toBe(false);
    health.tick(EJECTED_MS);
    health.tick(EJECTED_MS + 1);
    expect(health.isAvailable).toBe(true);
    expect(lines).toEqual(['warn upstream ejected', 'info upstream returned']);
    expect(health.counts).toMatchObject({ failures: EJECTED_AFTER + 10, ejections: 1 });
  });

  it('is not ejected by failures with successes between them', () => {
    const { health, fail } = upstream();
    for (let i = 0; i < 10; i++) {
      fail(0, EJECTED_AFTER - 1);
      health.succeeded();
    }
    expect([health.isAvailable, health.counts.ejections]).toEqual([true, 0]);
  });

  it('is ejected for twice the time by the first failure after its return, up to a bound; a success ends that', () => {
    const { health, fail } = upstream();
    let nowMs = 0;
    const ejectedMs = (failures: number) => {
      fail(nowMs, failures);
      const sinceMs = nowMs;
      while (!health.isAvailable) {
        nowMs += 1_000;
        health.tick(nowMs);
      }
      return nowMs - sinceMs;
    };
    expect(ejectedMs(EJECTED_AFTER)).toBe(EJECTED_MS);
    expect(ejectedMs(1)).toBe(2 * EJECTED_MS);
    expect(ejectedMs(1)).toBe(4 * EJECTED_MS);
    for (let i = 0; i < 5; i++) ejectedMs(1);
    expect(ejectedMs(1)).toBe(EJECTED_MS_MAX);
    health.succeeded();
    expect(ejectedMs(1)).toBe(0);
    expect(ejectedMs(EJECTED_AFTER - 1)).toBe(EJECTED_MS);
  });
});

describe('the health checks of an upstream', () => {
  const results = (text: string) => {
    const { health, lines } = upstream();
    const seen = [...text].map((result) => {
      health.checked(result === '+' ? undefined : 'status 503');
      return health.isAvailable ? '+' : '-';
    });
    return { seen: seen.join(''), lines, health };
  };

  it('decide alone at first, then when they agree: three that fail, two that are passed', () => {
    expect(results('-+-++').seen).toBe('----+');
    expect(results('+--+--+---').seen).toBe('+++++++++-');
    expect(results('+---+-+-++').seen).toBe('+++------+');
  });

  it('log each change once', () => {
    expect(results('+----++++').lines).toEqual(['warn upstream unhealthy', 'info upstream healthy']);
  });

  it('end no ejection, nor the other way round', () => {
    const { health, fail } = upstream();
    fail(0);
    for (let i = 0; i < 5; i++) health.checked(undefined);
    expect(health.isAvailable).toBe(false);
    for (let i = 0; i < UNHEALTHY_AFTER; i++) health.checked('status 503');
    health.tick(EJECTED_MS);
    expect(health.isAvailable).toBe(false);
    for (let i = 0; i < HEALTHY_AFTER; i++) health.checked(undefined);
    expect(health.isAvailable).toBe(true);
  });
});

describe('of several upstreams', () => {
  const several = (count: number) => {
    const upstreams = Array.from({ length: count }, (_, i) => upstream(`u${i}`));
    const pools = upstreams.map(({ health }) => ({ health }) as unknown as UpstreamPool);
    const group = new UpstreamGroup(pools);
    const next = (tried = 0) => group.pick(tried)?.health?.upstream;
    return { upstreams, pools, group, next };
  };

  it('each gets the same number of requests, in turn', () => {
    const { next } = several(3);
    const turn = [next(), next(), next()];
    expect([...turn].sort()).toEqual(['u0', 'u1', 'u2']);
    expect([next(), next(), next()]).toEqual(turn);
  });

  it('those that are ejected get none; when all are, they get them all the same', () => {
    const { next, upstreams } = several(3);
    upstreams[1]!.fail(0);
    expect(new Set(Array.from({ length: 6 }, () => next()))).toEqual(new Set(['u0', 'u2']));
    upstreams[0]!.fail(0);
    upstreams[2]!.fail(0);
    expect(new Set(Array.from({ length: 6 }, () => next()))).toEqual(new Set(['u0', 'u1', 'u2']));
  });

  it('a request can try each once: the available ones first, also of 32', () => {
    const { group, pools, upstreams } = several(32);
    upstreams[31]!.fail(0);
    let tried = 0;
    const seen: UpstreamPool[] = [];
    for (let pool = group.pick(tried); pool; pool = group.pick(tried)) {
      seen.push(pool);
      tried |= group.bitOf(pool);
    }
    expect(new Set(seen)).toEqual(new Set(pools));
    expect(seen).toHaveLength(32);
    expect(seen[31]).toBe(pools[31]);
  });
});
