/**
 * `npm run differential`: loads main.ts with its sources, as the tests do, on the services' Node.
 */
import { readFileSync } from 'node:fs';
import module from 'node:module';
import { fileURLToPath } from 'node:url';
import { transformSync } from '@swc/core';
import { underRuntimeNode } from '../../../../tools/lib/processes.mjs';

const own = new URL('../../', import.meta.url).href;
const isOwn = (url) => url.startsWith(own) && !url.includes('/node_modules/');

await underRuntimeNode(fileURLToPath(import.meta.url));
module.registerHooks({
  resolve(specifier, context, next) {
    const isRelative = specifier.startsWith('.') && context.parentURL?.endsWith('.ts') && isOwn(context.parentURL);
    return next(isRelative ? specifier.replace(/\.js$/, '.ts') : specifier, context);
  },
  load(url, context, next) {
    if (!isOwn(url) || !url.endsWith('.ts')) return next(url, context);
    const { code } = transformSync(readFileSync(fileURLToPath(url), 'utf8'), {
      filename: fileURLToPath(url),
      swcrc: false,
      sourceMaps: 'inline',
      module: { type: 'es6' },
      jsc: {
        target: 'es2024',
        parser: { syntax: 'typescript', decorators: true },
        transform: { legacyDecorator: true, decoratorMetadata: true, useDefineForClassFields: false },
      },
    });
    return { format: 'module', source: code, shortCircuit: true };
  },
});
await import('./main.ts');
