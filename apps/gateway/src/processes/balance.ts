/** What a process has to do. */
export interface Load {
  /** Open at the public port. */
  readonly connections: number;
  /** The part of its time for which its event loop was busy, 0 to 1. */
  readonly utilization: number;
}

const BUSY = 0.5;
/** How much busier than the idlest a process is that gives connections up. */
const LEAD = 0.25;

/**
 * How many connections each process closes after a response. The kernel gives a new connection to a process that waits:
 * on an idle gateway often to the same one, which then has all the work of kept connections. Once it is busy, its
 * callers' next connections go to the others. Half of what exceeds the mean, so that it does not swing.
 */
export function surplusOf(loads: readonly Load[]): number[] {
  const mean = loads.reduce((sum, { connections }) => sum + connections, 0) / loads.length;
  const least = Math.min(...loads.map(({ utilization }) => utilization));
  return loads.map(({ connections, utilization }) =>
    utilization > BUSY && utilization - least > LEAD ? Math.max(0, Math.floor((connections - mean + 1) / 2)) : 0,
  );
}
