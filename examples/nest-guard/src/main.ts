import 'reflect-metadata';
import { Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { FastifyAdapter, type NestFastifyApplication } from '@nestjs/platform-fastify';
import { LatchkeyModule } from './latchkey.module.js';
import { NotesController } from './notes.controller.js';

/**
 * Environment: `PORT` (4020; 0 takes a free one), `HOST` (127.0.0.1), `LATCHKEY_RPC` (127.0.0.1:50051),
 * `LATCHKEY_TOKEN` (required: a token with the scope `tokens:verify`), `LATCHKEY_CA_FILE`.
 */
function setting(name: string, standard?: string): string {
  const value = process.env[name] || standard;
  if (value !== undefined) return value;
  process.stderr.write(`nest-guard: ${name} is required. Set it and start again.\n`);
  process.exit(1);
}

const port = Number(setting('PORT', '4020'));
if (!Number.isInteger(port) || port < 0 || port > 65_535) {
  process.stderr.write('nest-guard: PORT must be a port number from 0 to 65535.\n');
  process.exit(1);
}

@Module({
  imports: [
    LatchkeyModule.register({
      rpcAddress: setting('LATCHKEY_RPC', '127.0.0.1:50051'),
      token: setting('LATCHKEY_TOKEN'),
      ...(process.env['LATCHKEY_CA_FILE'] ? { caFile: process.env['LATCHKEY_CA_FILE'] } : {}),
    }),
  ],
  controllers: [NotesController],
})
class AppModule {}

const app = await NestFactory.create<NestFastifyApplication>(AppModule, new FastifyAdapter({ bodyLimit: 64 * 1024 }), {
  logger: ['error', 'warn'],
});
app.enableShutdownHooks();
await app.listen(port, setting('HOST', '127.0.0.1'));
process.stdout.write(`listening ${await app.getUrl()}\n`);
