import { REDIS, signAcknowledgement } from '@latchkey/contracts';
import type { Attacker } from './attacker.js';
import type { Gateway } from './gateway.js';
import type { Line } from './network.js';
import { type Environment, LEASE_MS_MAX, LEASE_MS_MIN, type Replica } from './replica.js';

/** What faults act on. */
export interface Targets extends Environment {
  readonly gateways: readonly Gateway[];
  readonly replicas: readonly Replica[];
  readonly attacker: Attacker;
  /** Length of a lease as configured now; a fault may change it. */
  leaseMs: number;
  /** Longest lease configured so far. */
  longestLeaseMs: number;
  /** How often each fault is drawn in this world. */
  readonly weights: FaultWeights;
  note(text: string): void;
  /** Makes a change at this moment. */
  change(): void;
  /** Many checks of a few tokens at one gateway, within a moment. */
  rush(gateway: Gateway): void;
  /** Called when a backup has been restored. */
  restored(): void;
  /** Called when the stand-by is promoted. */
  promoted(): void;
}

const usual = {
  island: 6,
  trap: 4,
  absence: 2,
  arrival: 4,
  gatewayLine: 6,
  gatewayRedis: 4,
  redis: 4,
  replicaLine: 2,
  replicaRedis: 2,
  database: 1,
  replicaDatabase: 3,
  pause: 6,
  sleep: 4,
  wall: 3,
  drift: 3,
  killGateway: 2,
  restartGateway: 4,
  stopGateway: 3,
  killReplica: 3,
  holdXmin: 3,
  forge: 3,
  attacker: 2,
  signer: 1,
  endLease: 2,
  repeat: 3,
  leaseLength: 2,
  backUp: 1,
  restore: 1.5,
  restoreInPlace: 1.5,
  restart: 1.5,
  swap: 1.5,
  standBy: 1,
  promote: 1.5,
};
export type FaultName = keyof typeof usual;
export type FaultWeights = Readonly<Record<FaultName, number>>;

/** Each world has some faults and not others, some often, so that combinations occur that an even mix never makes. */
export function drawWeights(random: Environment['random'], only?: readonly FaultName[]): FaultWeights {
  const weights = { ...usual };
  const names = Object.keys(weights) as FaultName[];
  if (only) {
    for (const name of names) weights[name] = only.includes(name) ? 1 : 0;
    return weights;
  }
  if (random.chance(0.4)) {
    // A world of two faults, again and again.
    const two = [random.pick(names), random.pick(['trap', 'arrival', 'island', 'restartGateway'] as const)];
    for (const name of names) if (!two.includes(name)) weights[name] = 0;
    return weights;
  }
  for (const name of names) weights[name] *= random.chance(0.4) ? 0 : random.spread(0.3, 3);
  return weights;
}

type Ending = () => unknown;

/** A fault that has begun, and how it ends. */
interface Fault {
  readonly name: string;
  readonly end: Ending;
  readonly lastsMs: number;
}

const lineFaults = ['cut', 'loss', 'twice', 'slow'] as const;

/** Makes one line bad in one way. */
function spoil(line: Line, how: (typeof lineFaults)[number], random: Environment['random']): Ending {
  const before = { ...line };
  if (how === 'cut') line.cut = true;
  else if (how === 'loss') line.loss = random.spread(0.05, 0.9);
  else if (how === 'twice') line.twice = random.spread(0.1, 1);
  else line.slowMs = random.spread(10, 240);
  return () => {
    if (how === 'cut') line.cut = false;
    else if (how === 'loss') line.loss = before.loss > 0.04 ? 0 : before.loss;
    else if (how === 'twice') line.twice = 0;
    else line.slowMs = 4;
  };
}

/**
 * Begins one fault, drawn at random.
 * @returns how to end it; undefined for faults that are over at once (a clock stepped, a process killed and restarted)
 */
export function fault(targets: Targets): Fault | undefined {
  const { random, gateways, replicas, redis, db, schedule, note } = targets;
  const gateway = random.pick(gateways);
  const replica = random.pick(replicas);
  const either = random.chance(0.7) ? gateway : replica;
  const lasting = (name: string, end: Ending, lastsMs = random.spread(20, 2_500)): Fault => {
    note(`${name} …`);
    return { name, end, lastsMs };
  };
  /** Long enough, often, for a lease to lapse by every clock. */
  const leases = () => targets.leaseMs * (0.5 + 3 * random.float());
  const at = () => random.pick(lineFaults);
  switch (random.weighted(targets.weights)) {
    case 'island': {
      const lines = [gateway.line, gateway.redisLine];
      const ends = lines.map((line) => spoil(line, 'cut', random));
      if (random.chance(0.5)) schedule.after(random.spread(0.1, 30), () => targets.change());
      return lasting(
        `${gateway.name} cut off`,
        () => {
          for (const end of ends) end();
          targets.rush(gateway);
          if (random.chance(0.5)) schedule.after(random.float() * 300, () => targets.change());
        },
        leases(),
      );
    }
    case 'absence': {
      // Cut off until its row has been reaped; back when a replica has become slow and something changes.
      const cutMs = targets.leaseMs * (1.8 + random.float());
      const ends = [gateway.line, gateway.redisLine].map((line) => spoil(line, 'cut', random));
      targets.rush(gateway);
      const back = schedule.after(cutMs, () => {
        ends[0]!();
        replica.dbLine.slowMs = random.spread(15, 60);
        for (let i = 0; i < 2; i++) schedule.after(random.float() * 300, () => targets.change());
      });
      return lasting(
        `${gateway.name} cut off for long, then back to a slow ${replica.name}`,
        () => {
          back();
          for (const end of ends) end();
          replica.dbLine.slowMs = 4;
        },
        cutMs + 600,
      );
    }
    case 'trap': {
      // Redis is unavailable and responses are slow; something changes; then nothing passes any more.
      const redisEnd = spoil(gateway.redisLine, 'cut', random);
      const slowEnd = spoil(gateway.line, 'slow', random);
      const untilMs = random.spread(10, targets.leaseMs);
      targets.rush(gateway);
      schedule.after(untilMs, () => {
        targets.rush(gateway);
        targets.change();
      });
      const cutOff = schedule.after(untilMs + random.spread(1, 200), () => {
        gateway.line.cut = true;
      });
      return lasting(
        `${gateway.name} gets slow responses, then none`,
        () => {
          cutOff();
          slowEnd();
          redisEnd();
          gateway.line.cut = false;
        },
        untilMs + leases(),
      );
    }
    case 'arrival': {
      const slowEnd = spoil(gateway.line, 'slow', random);
      gateway.stop(() => {
        gateway.kill();
        schedule.after(random.spread(1, 300), () => {
          gateway.start();
          targets.rush(gateway);
          if (random.chance(0.7)) schedule.after(random.spread(0.1, 150), () => targets.change());
        });
      });
      return lasting(
        `${gateway.name} stops in order, to come back in a rush with slow responses`,
        slowEnd,
        300 + leases(),
      );
    }
    case 'gatewayLine': {
      const how = at();
      return lasting(`${gateway.name}: line to the token-service ${how}`, spoil(gateway.line, how, random));
    }
    case 'gatewayRedis': {
      const how = at();
      return lasting(`${gateway.name}: line to redis ${how}`, spoil(gateway.redisLine, how, random));
    }
    case 'redis': {
      const how = at();
      return lasting(`redis ${how}`, spoil(redis.line, how, random));
    }
    case 'replicaLine': {
      const how = at();
      return lasting(`${replica.name}: line to the gateways ${how}`, spoil(replica.line, how, random));
    }
    case 'replicaRedis': {
      const how = at();
      return lasting(`${replica.name}: line to redis ${how}`, spoil(replica.redisLine, how, random));
    }
    case 'database': {
      const how = at();
      return lasting(`postgresql ${how}`, spoil(db.line, how, random));
    }
    case 'replicaDatabase': {
      const how = at();
      return lasting(`${replica.name}: line to postgresql ${how}`, spoil(replica.dbLine, how, random));
    }
    case 'pause':
      if (!either.machine.running) return undefined;
      either.machine.pause();
      return lasting(`${either.name} paused`, () => either.machine.resume());
    case 'sleep':
      if (!either.machine.running) return undefined;
      either.machine.sleep();
      return lasting(`${either.name} asleep`, () => either.machine.resume());
    case 'wall': {
      const ms = random.pick([-1, 1]) * random.spread(10, 3_600_000);
      either.machine.stepWall(ms);
      note(`${either.name}: wall clock stepped by ${ms.toFixed(0)} ms`);
      return undefined;
    }
    case 'drift':
      either.machine.drift();
      note(`${either.name}: clock rate changed`);
      return undefined;
    case 'killGateway':
      gateway.kill();
      return lasting(`${gateway.name} killed`, () => gateway.start());
    case 'restartGateway':
      gateway.kill();
      gateway.start();
      note(`${gateway.name} killed and restarted`);
      if (random.chance(0.5)) schedule.after(random.spread(0.1, 30), () => targets.change());
      return undefined;
    case 'stopGateway':
      note(`${gateway.name} stops in order`);
      if (random.chance(0.5)) schedule.after(random.spread(0.1, 10), () => targets.change());
      gateway.stop(() => {
        note(`${gateway.name} has stopped`);
        gateway.kill();
        schedule.after(random.spread(1, 300), () => gateway.start());
      });
      return undefined;
    case 'killReplica':
      replica.kill();
      return lasting(`${replica.name} killed`, () => replica.start(targets.leaseMs));
    case 'holdXmin':
      db.primary.holdXmin(random.spread(20, 3_000));
      note('a long transaction holds xmin back');
      return undefined;
    case 'forge':
      forge(targets);
      return undefined;
    case 'attacker':
      return lasting('an attacker with leases and keys', targets.attacker.attack(false), leases());
    case 'signer':
      return lasting('an attacker with the signing key', targets.attacker.attack(true), leases());
    case 'endLease': {
      const [id] = [...gateway.ids].slice(-1);
      const row = id === undefined ? undefined : db.tables.leases.get(id);
      if (!row) return undefined;
      db.tables.leases.set(row.verifierId, { ...row, ended: true });
      note(`the lease of ${gateway.name} is ended`);
      if (random.chance(0.5)) schedule.after(random.spread(0.1, 30), () => targets.change());
      if (random.chance(0.5)) return undefined;
      const ends = [gateway.line, gateway.redisLine].map((line) => spoil(line, 'cut', random));
      targets.rush(gateway);
      const endAll = () => {
        for (const end of ends) end();
      };
      return lasting(`${gateway.name} cut off meanwhile`, endAll, leases());
    }
    case 'repeat':
      for (let i = 0; i < 5; i++) redis.repeat();
      note('redis repeats old messages');
      return undefined;
    case 'leaseLength':
      targets.leaseMs = Math.round(random.spread(LEASE_MS_MIN, LEASE_MS_MAX));
      targets.longestLeaseMs = Math.max(targets.longestLeaseMs, targets.leaseMs);
      replica.kill();
      replica.start(targets.leaseMs);
      note(`${replica.name} restarted; it grants leases of ${targets.leaseMs} ms`);
      return undefined;
    case 'backUp':
      db.backUp();
      note('postgresql is backed up');
      return undefined;
    case 'restore':
      if (!db.restore(targets.longestLeaseMs, random.chance(0.3))) return undefined;
      note('postgresql is restored from its backup');
      targets.restored();
      if (random.chance(0.5)) schedule.after(random.spread(0.1, 300), () => targets.change());
      return undefined;
    case 'restoreInPlace':
      if (!db.restoreInPlace(targets.longestLeaseMs)) return undefined;
      note('the folder of postgresql is put back in place');
      targets.restored();
      for (let i = 0; i < 2; i++)
        if (random.chance(0.5)) schedule.after(random.spread(0.1, 300), () => targets.change());
      return undefined;
    case 'swap': {
      const back = db.swap(targets.longestLeaseMs);
      if (!back) return undefined;
      targets.restored();
      targets.rush(gateway);
      const end = () => {
        if (!back()) return;
        note('the folder of postgresql is swapped back');
        targets.restored();
        if (random.chance(0.5)) schedule.after(random.spread(0.1, 300), () => targets.change());
      };
      return lasting('the folder of postgresql is swapped for an old one', end, random.spread(20, targets.leaseMs));
    }
    case 'restart':
      db.restart();
      note('postgresql is restarted');
      if (random.chance(0.5)) schedule.after(random.spread(0.1, 100), () => targets.change());
      return undefined;
    case 'standBy': {
      const server = db.primary;
      server.loseStandBy();
      return lasting('the stand-by is unavailable: commits hang', () => server === db.primary && server.findStandBy());
    }
    case 'promote': {
      // Around the promotion: a rush of lookups, and changes on the new primary.
      const untilMs = random.chance(0.5) ? random.spread(1, 300) : 0;
      targets.rush(gateway);
      const before = db.primary;
      if (untilMs > 0) before.loseStandBy();
      let isPromoted = false;
      const cancel = schedule.after(untilMs, () => {
        isPromoted = true;
        note('the stand-by is promoted; the old primary runs on');
        targets.promoted();
        db.promote();
        for (let i = 0; i < 2; i++) {
          schedule.after(random.spread(0.1, 300), () => targets.change());
          schedule.after(random.spread(0.1, 300), () => targets.rush(random.pick(gateways)));
        }
      });
      const end = () => {
        cancel();
        if (isPromoted) db.fence();
        else if (before === db.primary) before.findStandBy();
      };
      return lasting('two primaries', end, untilMs + leases());
    }
  }
}

/** Messages of an attacker on Redis who has no key. */
function forge({ random, gateways, redis, published, note }: Targets): void {
  note('an attacker without keys forges messages on redis');
  const wrongKey = new Uint8Array(32);
  for (const { ids } of gateways) {
    for (const verifier of ids)
      for (const digest of published.recent())
        redis.broadcast(REDIS.acknowledgements, JSON.stringify(signAcknowledgement(wrongKey, verifier, [digest])));
  }
  redis.broadcast(REDIS.invalidations, random.pick(['{}', 'not json', '"', '[]', '{"log":1}']));
}
