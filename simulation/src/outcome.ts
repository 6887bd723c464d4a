import type { Requirement } from '@latchkey/verifier';
import type { FaultName } from './faults.js';
import type { Gateway } from './gateway.js';
import type { Rooms } from './shipped.js';
import type { Change, Token } from './town.js';

export interface WorldOptions {
  readonly seed: number;
  /** How many things happen: checks, changes, faults. Default 200. */
  readonly steps?: number;
  /** The code under test; the shipped rooms by default. */
  readonly rooms?: Rooms;
  /** Which faults there are; by default each world draws its own. */
  readonly faults?: readonly FaultName[] | undefined;
  /** How long rows of the log stay, in milliseconds; by default little or much, as each world draws. */
  readonly keepMs?: number;
  /** Keep a readable history; costs time. Default no. */
  readonly history?: boolean;
}

export interface Outcome {
  readonly seed: number;
  /** The first broken invariant, in a sentence; undefined when all held. */
  readonly violation: string | undefined;
  readonly history: readonly string[];
  readonly checks: number;
  readonly allowed: number;
  readonly effective: number;
  /** How verifiers confirmed. */
  readonly by: Readonly<Record<string, number>>;
  /** How often gateways that are there at the end have emptied their memory. Each does so when it begins. */
  readonly resets: number;
  readonly gateways: number;
  readonly faults: number;
  readonly simulatedMs: number;
  readonly events: number;
}

/** A change under way or made. */
export interface Made {
  readonly change: Change;
  readonly id: string;
  readonly begunMs: number;
  effectiveMs: number | undefined;
  /** When a folder was put back last, whatever that did to it. */
  movedMs: number;
  /** A restored backup has undone it. */
  undone: boolean;
  /** How often it has been undone and was put back again. */
  era: number;
  by: Map<string, string>;
}

export interface Check {
  readonly gateway: Gateway;
  readonly token: Token;
  readonly requirement: Requirement;
  readonly begunMs: number;
  /** A change that had been effective before it began, and forbids it. */
  readonly forbidden: Made | undefined;
  /** Nothing has happened yet that could take it away. */
  readonly entitled: boolean;
  /** No fault was going on, and none had been for a while. */
  readonly calm: boolean;
  /** Faults begun until then. */
  readonly faults: number;
}
