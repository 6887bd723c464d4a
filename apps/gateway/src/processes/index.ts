export type { Load } from './balance.js';
export { Channel } from './channel.js';
export type { ProcessStart } from './process.js';
export { Processes } from './processes.js';
