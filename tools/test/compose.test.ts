import { readFileSync } from 'node:fs';
import path from 'node:path';
import { expect, test } from '@jest/globals';
import { parse } from 'yaml';
import {
  atTheEntrance,
  composeVariables,
  deprecated,
  derived,
  fixed,
  generate,
  services,
  settingsOf,
} from '../docs/environment.mjs';
import { root } from '../lib/repository.mjs';

interface Service {
  image: string;
  build?: unknown;
  environment?: Record<string, string>;
  networks?: string[] | Record<string, unknown>;
  volumes?: string[];
  profiles?: string[];
  ports?: string[];
  [key: string]: unknown;
}

const text = readFileSync(path.join(root, 'docker-compose.yml'), 'utf8');
const compose = parse(text, { merge: true }) as { services: Record<string, Service> };
const environmentOf = (service: string) => compose.services[service]!.environment ?? {};
/** Whether the variable NAME decides a value. */
const takes = (value: unknown, name: string) => new RegExp(`\\$\\{${name}(:-|\\})`).test(String(value));
const networksOf = ({ networks = [] }: Service) => (Array.isArray(networks) ? networks : Object.keys(networks));

test.each(services)('every setting of %s reaches it from .env, or follows from docker-compose.yml', async (service) => {
  const environment = environmentOf(service);
  const lost: string[] = [];
  for (const name of Object.keys(await settingsOf(service))) {
    if (takes(environment[name], name)) continue;
    const made = environment[`${name}_FILE`]?.startsWith('/run/latchkey/');
    if (made && (derived.includes(name) || takes(environmentOf('secrets')[name], name))) continue;
    if (service === 'gateway' && atTheEntrance.includes(name)) continue;
    if (fixed[service as keyof typeof fixed].includes(name) || deprecated.includes(name)) continue;
    lost.push(name);
  }
  expect(lost).toEqual([]);
});

test('the entrance takes what the gateway leaves to it', () => {
  const { entrance } = compose.services;
  expect(takes(entrance!.environment!['TRUSTED_PROXIES'], 'TRUSTED_PROXIES')).toBe(true);
  expect(takes(entrance!.ports![0], 'PORT')).toBe(true);
});

test('.env.example is generated, and contains every variable of docker-compose.yml', async () => {
  const example = readFileSync(path.join(root, '.env.example'), 'utf8');
  expect(example).toBe(await generate());
  const listed = new Set([...example.matchAll(/^#(\w+)=/gm)].map(([, name]) => name));
  const used = [...text.matchAll(/\$\{(\w+)/g)].map(([, name]) => name!);
  const files = new Set(used.filter((name) => name.endsWith('_FILE') && listed.has(name.replace(/_FILE$/, ''))));
  expect(used.filter((name) => !listed.has(name) && !files.has(name))).toEqual([]);
  for (const [name] of composeVariables) if (name !== 'COMPOSE_PROJECT_NAME') expect(used).toContain(name);
});

test('each image is built by one service', () => {
  const builders = Object.values(compose.services).filter(({ build }) => build);
  expect(builders.map(({ image }) => image).sort()).toEqual(['latchkey-entrance:local', 'latchkey:local']);
});

test('every container has limits of log, memory, processes and capabilities', () => {
  for (const [name, service] of Object.entries(compose.services))
    expect([name, Object.keys(service)]).toEqual([
      name,
      expect.arrayContaining(['logging', 'mem_limit', 'pids_limit', 'cap_drop', 'security_opt', 'read_only']),
    ]);
});

test('the bundled PostgreSQL and Redis have no way out, and what reaches the operator’s servers has', () => {
  for (const name of ['postgres', 'redis']) expect(networksOf(compose.services[name]!)).toEqual(['inside']);
  for (const name of [...services, 'migrate', 'backup', 'restore'])
    expect(networksOf(compose.services[name]!)).toEqual(expect.arrayContaining(['inside', 'egress']));
  const front = Object.entries(compose.services).filter(([, service]) => networksOf(service).includes('front'));
  expect(front.map(([name]) => name).sort()).toEqual(['entrance', 'entrance-tls', 'gateway']);
});

test('no single file of the host is mounted, whose replacement a container would not see', () => {
  const sources = Object.values(compose.services).flatMap(({ volumes = [] }) =>
    volumes.map((v) => v.replace(/:\/.*/, '')),
  );
  expect(sources.filter((source) => /[./]/.test(source) && !/^\$\{(CONFIG|BACKUP)_DIR:-/.test(source))).toEqual([]);
});
