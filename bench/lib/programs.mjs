/** The programs that the proxy benchmarks compare with: Debian's packages, else what is on PATH. */
import { execFile } from 'node:child_process';
import path from 'node:path';
import { promisify } from 'node:util';
import { debianPrograms, firstLine, hasApt, onPath } from '@latchkey/local-stack';

const execute = promisify(execFile);

/** @typedef {{ command: string, version: string, root: string | undefined }} Program `root`: folder with unpacked files */
/** @typedef {Program | { notHad: string }} Found */

/** @type {Record<'nginx' | 'haproxy' | 'wrk', { sets: string[][], inside: string, version: string[], code: number, pattern: RegExp }>} */
const programs = {
  nginx: {
    // The first set that can be fetched.
    sets: [['nginx', 'libnginx-mod-http-lua'], ['nginx']],
    inside: 'usr/sbin/nginx',
    version: ['-v'],
    code: 0,
    pattern: /nginx\/(\S+)/,
  },
  haproxy: {
    sets: [['haproxy']],
    inside: 'usr/sbin/haproxy',
    version: ['-v'],
    code: 0,
    pattern: /version (\d+\.\d+\.\d+)/,
  },
  wrk: { sets: [['wrk']], inside: 'usr/bin/wrk', version: ['-v'], code: 1, pattern: /wrk \S*?(\d+\.\d+\.\d+)/ },
};

/**
 * @param {keyof typeof programs} name
 * @param {(line: string) => void} log called when something is fetched
 * @returns {Promise<Found>}
 */
export async function findProgram(name, log) {
  const { sets, inside, version, code, pattern } = programs[name];
  const failures = hasApt() ? [] : ['no apt-get here'];
  for (const packages of hasApt() ? sets : []) {
    try {
      const unpacked = await debianPrograms({
        name: `bench-${packages.join('-')}`,
        packages,
        dependencies: true,
        programs: { [name]: inside },
        check: version,
        checkCode: code,
        message: `fetching ${packages.join(' and ')} from Debian's packages (once)`,
        log,
      });
      const command = /** @type {string} */ (unpacked.programs[name]);
      return { command, version: await versionOf(command), root: unpacked.root };
    } catch (error) {
      failures.push(`fetching ${packages.join(' and ')} failed: ${firstLine(error)}`);
    }
  }
  const command = onPath(name);
  if (command) return { command, version: await versionOf(command), root: undefined };
  return { notHad: `${failures.join('; ')}; none on PATH` };

  /** @param {string} command */
  async function versionOf(command) {
    const { stdout, stderr } = await execute(command, version).catch((error) => {
      if (error.code !== code) throw error;
      return error;
    });
    return pattern.exec(`${stdout}${stderr}`)?.[1] ?? 'of unknown version';
  }
}

/** Lines of nginx's configuration that load Lua from the unpacked packages. @param {Program} nginx */
export function luaOf({ root }) {
  if (!root) return { modules: '', packagePath: '' };
  const modules = ['ndk_http_module', 'ngx_http_lua_module'];
  return {
    modules: modules.map((name) => `load_module ${path.join(root, 'usr/lib/nginx/modules', name)}.so;\n`).join(''),
    packagePath: `${path.join(root, 'usr/share/lua/5.1')}/?.lua;`,
  };
}

/** Why a configuration of nginx is invalid; undefined when it is valid. @param {Program} nginx @param {string} file */
export async function nginxProblem({ command }, file) {
  try {
    await execute(command, ['-t', '-p', path.dirname(file), '-c', file]);
    return undefined;
  } catch (error) {
    const { stderr } = /** @type {{ stderr?: string }} */ (error);
    return stderr?.split('\n').find((line) => line.includes('[emerg]')) ?? firstLine(error);
  }
}
