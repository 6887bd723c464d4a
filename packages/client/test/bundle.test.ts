import path from 'node:path';
import { ENDPOINTS } from '@latchkey/contracts';
import { build } from 'esbuild';
import { createClient } from '../src/index.js';

const root = path.join(import.meta.dirname, '..', '..', '..');

it("includes neither zod nor Node's modules in a browser's bundle", async () => {
  const result = await build({
    stdin: {
      contents: `import { createClient } from '@latchkey/client'; globalThis.client = createClient({ baseUrl: '' });`,
      resolveDir: root,
    },
    absWorkingDir: root,
    bundle: true,
    minify: true,
    platform: 'browser',
    format: 'esm',
    write: false,
    metafile: true,
  });
  const files = Object.keys(result.metafile.inputs).filter((file) => file !== '<stdin>');
  expect(files.filter((file) => !file.startsWith('packages/client/dist/'))).toEqual([
    'packages/contracts/dist/http/endpoints-table.js',
  ]);
  expect(result.outputFiles[0]?.contents.byteLength).toBeLessThan(10_000);
});

it('has a method for every call', () => {
  const client = createClient({ baseUrl: '' });
  for (const name of Object.keys(ENDPOINTS)) expect(client).toHaveProperty(name, expect.any(Function));
});
