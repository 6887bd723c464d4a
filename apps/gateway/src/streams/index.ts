export { CLOSE_REVOKED, CLOSE_UNAVAILABLE, closeFrame, FrameBoundary } from './frames.js';
export { OpenExchanges, TICK_MS, type Timed } from './open-exchanges.js';
