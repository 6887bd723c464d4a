import preset from '../../tools/jest.preset.mjs';

/** Most of these tests wait for leases and servers: more of them than processors run at once. */
export default preset(import.meta.dirname, { maxWorkers: process.env.JEST_WORKERS ?? 3 });
