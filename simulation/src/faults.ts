import { REDIS, signAcknowledgement } from '@latchkey/contracts';
import type { Gateway } from './gateway.js';
import type { Holder } from './holder.js';
import type { Line } from './network.js';
import { LEASE_MS_MAX, LEASE_MS_MIN, type Replica, type Surroundings } from './replica.js';

/** What faults may touch. */
export interface Victims extends Surroundings {
  readonly gateways: readonly Gateway[];
  readonly replicas: readonly Replica[];
  readonly holder: Holder;
  /** Length of a lease as configured now; a fault may change it. */
  leaseMs: number;
  /** Longest lease configured so far. */
  longestLeaseMs: number;
  /** How often each fault is drawn in this world. */
  readonly weights: FaultWeights;
  note(text: string): void;
  /** Somebody changes something at this moment. */
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
  holder: 2,
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

/** Each world knows some faults and not others, some often: so it sees combinations that an even mix never makes. */
export function drawWeights(random: Surroundings['random'], only?: readonly FaultName[]): FaultWeights {
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
function spoil(line: Line, how: (typeof lineFaults)[number], random: Surroundings['random']): Ending {
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
 * Begins one fault, drawn at random. Answers how to end it; faults that are over at once (a clock stepped, a process
 * killed and started again) answer nothing.
 */
export function fault(victims: Victims): Fault | undefined {
  const { random, gateways, replicas, redis, db, schedule, note } = victims;
  const gateway = random.pick(gateways);
  const replica = random.pick(replicas);
  const either = random.chance(0.7) ? gateway : replica;
  const lasting = (name: string, end: Ending, lastsMs = random.spread(20, 2_500)): Fault => {
    note(`${name} …`);
    return { name, end, lastsMs };
  };
  /** Long enough, often, for a lease to lapse by anybody's clock. */
  const leases = () => victims.leaseMs * (0.5 + 3 * random.float());
  const at = () => random.pick(lineFaults);
  switch (random.weighted(victims.weights)) {
    case 'island': {
      const lines = [gateway.line, gateway.redisLine];
      const ends = lines.map((line) => spoil(line, 'cut', random));
      if (random.chance(0.5)) schedule.after(random.spread(0.1, 30), () => victims.change());
      return lasting(
        `${gateway.name} cut off`,
        () => {
          for (const end of ends) end();
          victims.rush(gateway);
          if (random.chance(0.5)) schedule.after(random.float() * 300, () => victims.change());
        },
        leases(),
      );
    }
    case 'absence': {
      // Cut off until its row has been judged dead; back when a replica has become slow and something changes.
      const awayMs = victims.leaseMs * (1.8 + random.float());
      const ends = [gateway.line, gateway.redisLine].map((line) => spoil(line, 'cut', random));
      victims.rush(gateway);
      const back = schedule.after(awayMs, () => {
        ends[0]!();
        replica.dbLine.slowMs = random.spread(15, 60);
        for (let i = 0; i < 2; i++) schedule.after(random.float() * 300, () => victims.change());
      });
      return lasting(
        `${gateway.name} cut off for long, then back to a slow ${replica.name}`,
        () => {
          back();
          for (const end of ends) end();
          replica.dbLine.slowMs = 4;
        },
        awayMs + 600,
      );
    }
    case 'trap': {
      // Redis is away and answers are slow; something changes; then nothing passes any more.
      const redisEnd = spoil(gateway.redisLine, 'cut', random);
      const slowEnd = spoil(gateway.line, 'slow', random);
      const untilMs = random.spread(10, victims.leaseMs);
      victims.rush(gateway);
      schedule.after(untilMs, () => {
        victims.rush(gateway);
        victims.change();
      });
      const cutOff = schedule.after(untilMs + random.spread(1, 200), () => {
        gateway.line.cut = true;
      });
      return lasting(
        `${gateway.name} gets slow answers, then none`,
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
          victims.rush(gateway);
          if (random.chance(0.7)) schedule.after(random.spread(0.1, 150), () => victims.change());
        });
      });
      return lasting(
        `${gateway.name} stops in order, to come back in a rush with slow answers`,
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
      return lasting(`${either.name} paused`, () => either.machine.goOn());
    case 'sleep':
      if (!either.machine.running) return undefined;
      either.machine.sleep();
      return lasting(`${either.name} asleep`, () => either.machine.goOn());
    case 'wall': {
      const ms = random.pick([-1, 1]) * random.spread(10, 3_600_000);
      either.machine.stepWall(ms);
      note(`${either.name}: wall clock stepped by ${ms.toFixed(0)} ms`);
      return undefined;
    }
    case 'drift':
      either.machine.drift();
      note(`${either.name}: clock drifts otherwise`);
      return undefined;
    case 'killGateway':
      gateway.kill();
      return lasting(`${gateway.name} killed`, () => gateway.start());
    case 'restartGateway':
      gateway.kill();
      gateway.start();
      note(`${gateway.name} killed and started again`);
      if (random.chance(0.5)) schedule.after(random.spread(0.1, 30), () => victims.change());
      return undefined;
    case 'stopGateway':
      note(`${gateway.name} stops in order`);
      if (random.chance(0.5)) schedule.after(random.spread(0.1, 10), () => victims.change());
      gateway.stop(() => {
        note(`${gateway.name} has stopped`);
        gateway.kill();
        schedule.after(random.spread(1, 300), () => gateway.start());
      });
      return undefined;
    case 'killReplica':
      replica.kill();
      return lasting(`${replica.name} killed`, () => replica.start(victims.leaseMs));
    case 'holdXmin':
      db.primary.holdXmin(random.spread(20, 3_000));
      note('a long transaction holds xmin back');
      return undefined;
    case 'forge':
      forge(victims);
      return undefined;
    case 'holder':
      return lasting('a holder of keys attacks', victims.holder.attack(false), leases());
    case 'signer':
      return lasting('somebody who has the signing key attacks', victims.holder.attack(true), leases());
    case 'endLease': {
      const [id] = [...gateway.ids].slice(-1);
      const row = id === undefined ? undefined : db.tables.leases.get(id);
      if (!row) return undefined;
      db.tables.leases.set(row.verifierId, { ...row, ended: true });
      note(`the lease of ${gateway.name} is ended`);
      if (random.chance(0.5)) schedule.after(random.spread(0.1, 30), () => victims.change());
      if (random.chance(0.5)) return undefined;
      const ends = [gateway.line, gateway.redisLine].map((line) => spoil(line, 'cut', random));
      victims.rush(gateway);
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
      victims.leaseMs = Math.round(random.spread(LEASE_MS_MIN, LEASE_MS_MAX));
      victims.longestLeaseMs = Math.max(victims.longestLeaseMs, victims.leaseMs);
      replica.kill();
      replica.start(victims.leaseMs);
      note(`${replica.name} started again; it grants leases of ${victims.leaseMs} ms`);
      return undefined;
    case 'backUp':
      db.backUp();
      note('postgresql is backed up');
      return undefined;
    case 'restore':
      if (!db.restore(victims.longestLeaseMs, random.chance(0.3))) return undefined;
      note('postgresql is restored from its backup');
      victims.restored();
      if (random.chance(0.5)) schedule.after(random.spread(0.1, 300), () => victims.change());
      return undefined;
    case 'restoreInPlace':
      if (!db.restoreInPlace(victims.longestLeaseMs)) return undefined;
      note('the folder of postgresql is put back in place');
      victims.restored();
      for (let i = 0; i < 2; i++)
        if (random.chance(0.5)) schedule.after(random.spread(0.1, 300), () => victims.change());
      return undefined;
    case 'swap': {
      const back = db.swap(victims.longestLeaseMs);
      if (!back) return undefined;
      victims.restored();
      victims.rush(gateway);
      const end = () => {
        if (!back()) return;
        note('the folder of postgresql is swapped back');
        victims.restored();
        if (random.chance(0.5)) schedule.after(random.spread(0.1, 300), () => victims.change());
      };
      return lasting('the folder of postgresql is swapped for an old one', end, random.spread(20, victims.leaseMs));
    }
    case 'restart':
      db.restart();
      note('postgresql starts again');
      if (random.chance(0.5)) schedule.after(random.spread(0.1, 100), () => victims.change());
      return undefined;
    case 'standBy': {
      const server = db.primary;
      server.loseStandBy();
      return lasting('the stand-by is away: commits hang', () => server === db.primary && server.findStandBy());
    }
    case 'promote': {
      // As many would do it: a rush of look-ups, and something changes on the new side.
      const untilMs = random.chance(0.5) ? random.spread(1, 300) : 0;
      victims.rush(gateway);
      const before = db.primary;
      if (untilMs > 0) before.loseStandBy();
      let isPromoted = false;
      const cancel = schedule.after(untilMs, () => {
        isPromoted = true;
        note('the stand-by is promoted; the old primary lives on');
        victims.promoted();
        db.promote();
        for (let i = 0; i < 2; i++) {
          schedule.after(random.spread(0.1, 300), () => victims.change());
          schedule.after(random.spread(0.1, 300), () => victims.rush(random.pick(gateways)));
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

/** Somebody on Redis who has no key says what they like. */
function forge({ random, gateways, redis, said, note }: Victims): void {
  note('somebody forges messages on redis');
  const nobody = new Uint8Array(32);
  for (const { ids } of gateways) {
    for (const verifier of ids)
      for (const digest of said.lately())
        redis.say(REDIS.acknowledgements, JSON.stringify(signAcknowledgement(nobody, verifier, [digest])));
  }
  redis.say(REDIS.invalidations, random.pick(['{}', 'not json', '"', '[]', '{"log":1}']));
}
