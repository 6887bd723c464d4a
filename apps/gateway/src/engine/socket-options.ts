/**
 * Options of a socket whose other side is asked by TCP, after a minute of silence, whether it is still there: a machine that is
 * gone ends no connection, and a silent stream would stay open for ever.
 */
export const PROBED = { keepAlive: true, keepAliveInitialDelay: 60_000 } as const;
