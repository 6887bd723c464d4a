import type { Requirement } from '@latchkey/verifier';
import type { FaultName } from './faults.js';
import type { Gateway } from './gateway.js';
import type { Change, Token } from './model.js';
import type { Modules } from './shipped.js';

export interface WorldOptions {
  readonly seed: number;
  /** How many things happen: checks, changes, faults. Default 200. */
  readonly steps?: number;
  /** The code under test; the shipped modules by default. */
  readonly modules?: Modules;
  /** The faults that occur; by default each world draws its own. */
  readonly faults?: readonly FaultName[] | undefined;
  /** Retention of rows of the log, in milliseconds; by default each world draws a short or a long one. */
  readonly retentionMs?: number;
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
  /** How often gateways that run at the end have emptied their memory. Each does so when it starts. */
  readonly resets: number;
  readonly gateways: number;
  readonly faults: number;
  readonly simulatedMs: number;
  readonly events: number;
}

/** What is known about a change, under way or made. */
export interface ChangeState {
  readonly change: Change;
  readonly id: string;
  readonly begunMs: number;
  effectiveMs: number | undefined;
  /** When a folder was put back last, in true time, with or without an effect on this change. */
  restoredMs: number;
  /** A restored backup has undone it. */
  undone: boolean;
  /** How often it has been undone and then put back. */
  era: number;
  by: Map<string, string>;
}

export interface Check {
  readonly gateway: Gateway;
  readonly token: Token;
  readonly requirement: Requirement;
  readonly begunMs: number;
  /** A change that had been effective before it began, and forbids it. */
  readonly forbidden: ChangeState | undefined;
  /** Nothing has happened yet that could take it away. */
  readonly entitled: boolean;
  /** No fault was going on, and none had been for a while. */
  readonly calm: boolean;
  /** Faults begun until then. */
  readonly faults: number;
}
