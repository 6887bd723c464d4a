/** The commands in the image: `node packages/backup/dist/main.js backup …`, or `restore …`. */
import path from 'node:path';
import { backupProgram, restoreProgram, runProgram } from './cli.js';
import { containers } from './containers.js';

const place = containers(path.join(import.meta.dirname, '../../..'), process.env);
const [which, ...args] = process.argv.slice(2);
if (which === 'restore') await runProgram(which, restoreProgram(place), args);
else await runProgram('backup', backupProgram(place), which === 'backup' ? args : process.argv.slice(2));
