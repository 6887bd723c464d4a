export const FAULTS = {
  /** Of processes. */
  kill: 4,
  stop: 2,
  pause: 1,
  /** All stop, the database is put back meanwhile, and all start together. */
  together: 2,
  /** Of the database. */
  restart: 3,
  putBack: 4,
  dump: 2,
  otherServer: 2,
  promote: 2,
  /** It is used on another server too: for less than half a minute, or longer. */
  moved: 1,
  copied: 1,
  /** Of the disk that a ledger is on; the last also as its history ends. */
  full: 2,
  slow: 1,
  fullAtEnd: 1,
  /** Of a ledger. */
  lose: 1,
  older: 1,
  cut: 1,
  streamGone: 1,
  /** Its folder is not there for a time, and a new one is begun in its place. */
  exchange: 1,
  /** Of one beside the own. */
  unreadable: 1,
  /** Of the settings: none is kept, and later one again. */
  unconfigured: 1,
  /** Of the calendar. */
  months: 1,
} as const;
export type RestoreFault = keyof typeof FAULTS;

/** A ledger that is all there vouches: after these nobody has to decide. */
export const BENIGN: readonly RestoreFault[] = [
  'kill',
  'stop',
  'pause',
  'together',
  'restart',
  'putBack',
  'dump',
  'otherServer',
  'promote',
  'moved',
  'exchange',
  'months',
];

export type Move = 'restart' | 'putBack' | 'dump' | 'otherServer' | 'promote';
export const RESTORES: readonly Move[] = ['putBack', 'dump', 'otherServer', 'promote'];
