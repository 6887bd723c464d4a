import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { credentials, loadPackageDefinition, Metadata, type ServiceError, status } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { ENDPOINTS, type Endpoint, INTERNAL_PROTO_FILE, PROTO_FILE } from '@latchkey/contracts';
import { bearer, createLogger, firstParty, NestLogger, PROTO_OPTIONS, systemClock } from '@latchkey/runtime';
import { freePorts } from '@latchkey/testing';
import { Controller, Get, Module, RequestMethod } from '@nestjs/common';
import { DiscoveryModule, DiscoveryService, MetadataScanner, NestFactory } from '@nestjs/core';
import { GrpcMethod, type MicroserviceOptions, Transport } from '@nestjs/microservices';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import type { FastifyInstance } from 'fastify';
import { appModule } from '../src/app.module.js';
import { tokenServiceConfig } from '../src/config.js';
import { AuthorityLost, Database, LOG_FILE } from '../src/database/index.js';
import { createAdapter, ENDPOINT_METADATA } from '../src/http/index.js';
import { CALLABLE_BY } from '../src/rpc/index.js';
import { RestoreService } from '../src/system/index.js';
import { PeppersService } from '../src/verification/index.js';
import { GATEWAY_RPC_SECRET, issue, JOBS_RPC_SECRET, type Person, type World, world } from './harness.js';

/** Declares access for neither of its handlers. */
@Controller()
class Planted {
  @Get('/planted')
  overHttp() {
    return 'let in';
  }

  @GrpcMethod('Planted', 'Call')
  overRpc() {
    return {};
  }
}
const PLANTED_PROTO =
  'syntax = "proto3"; package planted; service Planted { rpc Call(Nothing) returns (Nothing); } message Nothing {}';

interface Handler {
  name: string;
  /** `GET /v1/tokens/:id` */
  route: string | undefined;
  /** `Tokens/Verify` */
  rpc: string | undefined;
  endpoint: string | undefined;
  callableBy: readonly string[] | undefined;
}

let w: World;
let app: NestFastifyApplication;
let dir: string;
let rpcAddress: string;
let url: string;
const served: string[] = [];
let handlers: Handler[];

/** The handlers that Nest found, with the metadata of their decorators. */
function handlersOf(discovery: DiscoveryService, scanner: MetadataScanner): Handler[] {
  return discovery.getControllers().flatMap(({ instance, metatype }) => {
    const prototype = Object.getPrototypeOf(instance);
    return scanner.getAllMethodNames(prototype).flatMap((method) => {
      const metadataOf = (key: string) => Reflect.getMetadata(key, prototype[method]);
      const [pattern] = (metadataOf('microservices:pattern') ?? []) as { service: string; rpc: string }[];
      const paths = metadataOf('path') as string | undefined;
      if (paths === undefined && !pattern) return [];
      return {
        name: `${metatype!.name}.${method}`,
        route: paths === undefined ? undefined : `${RequestMethod[metadataOf('method')]} ${paths}`,
        rpc: pattern && `${pattern.service}/${pattern.rpc}`,
        endpoint: metadataOf(ENDPOINT_METADATA),
        callableBy: metadataOf(CALLABLE_BY),
      };
    });
  });
}

beforeAll(async () => {
  w = await world();
  dir = mkdtempSync(path.join(tmpdir(), 'latchkey-planted-'));
  const protoPath = path.join(dir, 'planted.proto');
  writeFileSync(protoPath, PLANTED_PROTO);
  const [config, logger] = [tokenServiceConfig(w.env), createLogger('test', 'fatal')];
  const adapter = createAdapter(config, logger);
  (adapter.getInstance() as unknown as FastifyInstance).addHook('onRoute', ({ method, url: at }) => {
    served.push(...[method].flat().map((one) => `${one} ${at}`));
  });
  @Module({ imports: [appModule(config, logger, systemClock), DiscoveryModule], controllers: [Planted] })
  class PlantedModule {}
  app = await NestFactory.create<NestFastifyApplication>(PlantedModule, adapter, {
    logger: new NestLogger(logger),
    bodyParser: false,
    abortOnError: false,
  });
  rpcAddress = `127.0.0.1:${(await freePorts(1))[0]}`;
  app.connectMicroservice<MicroserviceOptions>(
    { transport: Transport.GRPC, options: { url: rpcAddress, package: 'planted', protoPath } },
    { inheritAppConfig: true },
  );
  await app.init();
  await app.get(PeppersService).start();
  await app.get(RestoreService).start();
  await app.startAllMicroservices();
  await app.listen(0, '127.0.0.1');
  url = await app.getUrl();
  handlers = handlersOf(app.get(DiscoveryService), app.get(MetadataScanner)).filter(
    ({ name }) => !name.startsWith('Planted.'),
  );
});
afterAll(async () => {
  await app.close();
  await w.close();
  rmSync(dir, { recursive: true });
});

const scopeOf = (endpoint: string) => (ENDPOINTS as Record<string, Endpoint>)[endpoint]?.scope;
const isOpen = ({ endpoint }: Handler) => endpoint === 'public' || scopeOf(endpoint!) === 'none';

describe('over HTTP', () => {
  test('every served HTTP route has a handler that declares who may call it', () => {
    const routes = handlers.filter(({ route }) => route !== undefined);
    const isKnown = ({ endpoint }: Handler) =>
      endpoint === 'public' || endpoint === 'any-token' || scopeOf(endpoint!) !== undefined;
    expect(routes.filter((handler) => !isKnown(handler))).toEqual([]);
    const expected = served.filter((one) => !/^(HEAD|OPTIONS) /.test(one) && one !== 'GET /planted');
    expect(routes.map(({ route }) => route).sort()).toEqual(expected.sort());
  });

  test('routes outside the management API are open as listed here', () => {
    const others = handlers.filter(({ route, endpoint }) => route !== undefined && scopeOf(endpoint!) === undefined);
    expect(Object.fromEntries(others.map(({ route, endpoint }) => [route, endpoint]))).toEqual({
      'POST /mcp': 'any-token',
      'GET /v1/openapi.json': 'public',
      'GET /v1/docs': 'public',
    });
  });

  test('every HTTP handler rejects a request without credentials, unless it is declared public', async () => {
    for (const handler of handlers.filter(({ route }) => route !== undefined)) {
      const [method = '', at = ''] = handler.route!.split(' ');
      const response = await fetch(`${url}${at.replace(/:\w+/g, '01890000-0000-7000-8000-000000000000')}`, {
        method,
        redirect: 'manual',
      });
      const { code } =
        response.status === 401 || response.status === 403 ? ((await response.json()) as { code: string }) : {};
      expect([handler.name, code === 'unauthenticated' ? 'refused' : code]).toEqual([
        handler.name,
        isOpen(handler) ? undefined : 'refused',
      ]);
    }
  });

  test('an HTTP handler without an access declaration is closed to every caller', async () => {
    const admin = await w.signIn();
    const { secret } = await issue(admin, { scopes: ['tokens:read'] });
    const callers: [string, Record<string, string>][] = [
      ['an anonymous caller', {}],
      ['an administrator', { cookie: (admin as Person).cookie! }],
      ['a token', { authorization: bearer(secret) }],
      ['a gateway', { authorization: firstParty(GATEWAY_RPC_SECRET) }],
    ];
    for (const [who, headers] of callers) {
      const response = await fetch(`${url}/planted`, { headers });
      expect([who, response.status]).toEqual([who, 403]);
      expect(await response.text()).not.toContain('let in');
    }
  });
});

describe('over gRPC', () => {
  /** Who may call the methods of each service; credentials.test.ts checks each method. */
  const CALLERS: Record<string, readonly string[]> = { Tokens: ['gateway', 'token'], Maintenance: ['jobs'] };

  test('each gRPC method has one handler, and each handler declares who may call it', () => {
    const methods = [PROTO_FILE, INTERNAL_PROTO_FILE].flatMap((file) =>
      Object.entries(loadSync(file, PROTO_OPTIONS)).flatMap(([name, definition]) =>
        'format' in definition ? [] : Object.keys(definition).map((rpc) => `${name.split('.').at(-1)}/${rpc}`),
      ),
    );
    const found = handlers.filter(({ rpc }) => rpc !== undefined);
    const expected = [...new Set(methods)].map((rpc) => [rpc, CALLERS[rpc.split('/')[0]!]]);
    expect(found.map(({ rpc, callableBy }) => [rpc, callableBy]).sort()).toEqual(expected.sort());
  });

  test('a gRPC handler without an access declaration is closed to every caller', async () => {
    const loaded = loadPackageDefinition(loadSync(path.join(dir, 'planted.proto')));
    type Call = (request: object, metadata: Metadata, done: (error: ServiceError | null) => void) => void;
    const { Planted: Client } = loaded['planted'] as unknown as {
      Planted: new (address: string, channel: object) => { Call: Call; close(): void };
    };
    const client = new Client(rpcAddress, credentials.createInsecure());
    const codeFor = (authorization: string) =>
      new Promise<status>((resolve) => {
        const metadata = new Metadata();
        if (authorization) metadata.set('authorization', authorization);
        client.Call({}, metadata, (error) => resolve(error ? error.code : status.OK));
      });
    try {
      const { secret } = await issue(await w.signIn(), { scopes: ['tokens:verify'] });
      for (const authorization of [firstParty(JOBS_RPC_SECRET), firstParty(GATEWAY_RPC_SECRET), bearer(secret)])
        expect(await codeFor(authorization)).toBe(status.PERMISSION_DENIED);
      expect(await codeFor('')).toBe(status.UNAUTHENTICATED);
    } finally {
      client.close();
    }
  });
});

test('what was read before a history was accepted allows nothing, though it arrives behind that', async () => {
  const db = app.get(Database);
  const slowly = () =>
    db.authoritative<{ file: string }>('slow', `SELECT ${LOG_FILE} AS file, pg_sleep(0.5)::text`, []);
  const { acceptedHistory } = db;
  expect(acceptedHistory).not.toBe('');
  db.withdraw();
  const read = slowly();
  await sleep(200);
  db.accept(acceptedHistory);
  await expect(read).rejects.toThrow(AuthorityLost);
  expect(await slowly()).toHaveLength(1);
});
