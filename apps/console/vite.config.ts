import react from '@vitejs/plugin-react';
import { defineConfig } from 'vite';

// Served by the gateway at `/` under a Content-Security-Policy without inline script, inline style or eval: nothing is
// inlined, and every file's name but index.html's carries a hash.
export default defineConfig({
  plugins: [react()],
  build: { assetsInlineLimit: 0, modulePreload: { polyfill: false }, target: 'es2022' },
});
