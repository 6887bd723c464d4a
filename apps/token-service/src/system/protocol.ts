/** What is decided after a restore, without Nest or PostgreSQL: what the simulation runs. */
export * from './examination.js';
export * from './replay.rules.js';
