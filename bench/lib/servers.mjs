/** Starts the servers of a proxy benchmark, each with a folder for its files. */
import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { nginx as nginxConfiguration } from './configurations.mjs';
import { start } from './processes.mjs';

/** @param {string} dir @param {(() => unknown)[]} stops what stops them is added here */
export function servers(dir, stops) {
  /** @param {string} command @param {string[]} args @param {number} processor @param {number} port */
  const startServer = async (command, args, processor, port) => {
    const process = await start({ command, args, processor, ready: null });
    stops.push(() => process.stop());
    await process.listensOn(port);
    return process;
  };
  /** @param {string} name @param {string} http @param {string} [modules] @returns {string} the file */
  const writeNginx = (name, http, modules) => {
    const folder = path.join(dir, name);
    mkdirSync(folder, { recursive: true });
    const file = path.join(folder, 'nginx.conf');
    writeFileSync(file, nginxConfiguration(folder, http, modules));
    return file;
  };
  return {
    startServer,
    writeNginx,
    /** @param {import('./programs.mjs').Program} nginx @param {string} file @param {number} processor @param {number} port */
    startNginx: (nginx, file, processor, port) =>
      startServer(nginx.command, ['-p', path.dirname(file), '-c', file], processor, port),
    /** A program of peers/ that prints its port. @param {number} processor @param {string} file @param {...string} args */
    async startPeer(processor, file, ...args) {
      const peer = path.join(import.meta.dirname, '../peers', file);
      const process = await start({ args: [peer, ...args], processor });
      stops.push(() => process.stop());
      return { process, port: Number(process.match[1]) };
    },
  };
}
