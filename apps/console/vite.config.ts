import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { brotliCompressSync, constants, gzipSync } from 'node:zlib';
import react from '@vitejs/plugin-react';
import { defineConfig, type Plugin } from 'vite';

const COMPRESSIBLE = /\.(html|js|css|svg)$/;
/** Below this, headers weigh more than what compression saves. */
const BYTES_MIN = 500;

/** Leaves `x.br` and `x.gz` beside each file of the build, which the gateway serves to clients that accept them. */
function precompressed(): Plugin {
  let folder = '';
  return {
    name: 'precompressed',
    apply: 'build',
    configResolved: ({ root, build }) => {
      folder = path.resolve(root, build.outDir);
    },
    closeBundle: () => {
      for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true })) {
        const file = path.join(entry.parentPath, entry.name);
        const bytes = entry.isFile() && COMPRESSIBLE.test(entry.name) ? readFileSync(file) : Buffer.alloc(0);
        if (bytes.length < BYTES_MIN) continue;
        const params = { [constants.BROTLI_PARAM_QUALITY]: constants.BROTLI_MAX_QUALITY };
        writeFileSync(`${file}.br`, brotliCompressSync(bytes, { params }));
        writeFileSync(`${file}.gz`, gzipSync(bytes, { level: constants.Z_BEST_COMPRESSION }));
      }
    },
  };
}

// Served by the gateway at `/` under a Content-Security-Policy without inline script, inline style or eval: nothing is
// inlined, and the name of every file below `assets` carries a hash.
export default defineConfig({
  plugins: [react(), precompressed()],
  build: { assetsInlineLimit: 0, modulePreload: { polyfill: false }, target: 'es2022' },
});
