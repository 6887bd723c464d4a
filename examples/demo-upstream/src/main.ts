import { createLog, LOG_LEVELS, type LogLevel } from './log.js';
import { startDemoUpstream } from './server.js';

/**
 * Environment: `PORT` (4010; 0 takes a free one), `HOST` (127.0.0.1), `LOG_LEVEL` (info), `PUBLIC_URL` (the address
 * people use, whose pages may call `/mcp`). SIGTERM and SIGINT stop it in order.
 */
function readEnvironment(env: NodeJS.ProcessEnv) {
  const wrong = (name: string, message: string): never => {
    process.stderr.write(`demo-upstream: ${name} ${message}. Correct it and start again.\n`);
    process.exit(1);
  };
  const port = env['PORT'] || '4010';
  if (!/^\d{1,5}$/.test(port) || Number(port) > 65_535)
    wrong('PORT', `must be a port number from 0 to 65535, not "${port}"`);
  const level = (env['LOG_LEVEL'] || 'info') as LogLevel;
  if (!LOG_LEVELS.includes(level)) wrong('LOG_LEVEL', `must be one of ${LOG_LEVELS.join(', ')}, not "${level}"`);
  const publicUrl = env['PUBLIC_URL'];
  if (publicUrl && !URL.canParse(publicUrl))
    wrong('PUBLIC_URL', 'must be a whole address such as https://api.example.org');
  return {
    port: Number(port),
    host: env['HOST'] || '127.0.0.1',
    level,
    allowedOrigins: publicUrl ? [new URL(publicUrl).origin] : [],
  };
}

const { level, ...options } = readEnvironment(process.env);
const log = createLog(level);
const demo = await startDemoUpstream({ ...options, log }).catch((error: NodeJS.ErrnoException) => {
  const hint = error.code === 'EADDRINUSE' ? 'PORT is taken; choose another' : error.message;
  process.stderr.write(`demo-upstream: cannot listen on ${options.host}:${options.port}: ${hint}.\n`);
  process.exit(1);
});

let stopping = false;
for (const name of ['SIGTERM', 'SIGINT'] as const) {
  process.on(name, () => {
    if (stopping) return;
    stopping = true;
    log.info('stopping', { signal: name });
    void demo.close();
  });
}
