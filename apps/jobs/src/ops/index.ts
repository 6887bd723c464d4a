export { BOARD_PATH, boardHandler } from './board.js';
export { JobMetrics } from './metrics.service.js';
export { watch } from './watch.js';
