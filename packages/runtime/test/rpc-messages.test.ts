import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { promisify } from 'node:util';
import { INTERNAL_PROTO_FILE, PROTO_FILE } from '@latchkey/contracts';

const run = promisify(execFile);
const { resolve } = createRequire(import.meta.url);
const GENERATOR = resolve('@grpc/proto-loader/build/bin/proto-loader-gen-types.js');
const COMPILER = path.join(path.dirname(resolve('typescript/package.json')), 'bin', 'tsc');
/** The equivalent of PROTO_OPTIONS; the types of received messages are compared. */
const AS_READ = ['--longs=Number', '--enums=String', '--defaults', '--arrays', '--outputTemplate=%s'];
const GENERATED = ['--inputTemplate=%s__Input', '--grpcLib=@grpc/grpc-js', '--importFileExtension=.js'];

/**
 * Types only: compares each method's messages with those of the proto, recursively. Our narrower types count as their
 * wire types: closed lists as strings, fields that older peers omit as present.
 */
const EQUALITY = `
import type { MethodDefinition } from '@grpc/proto-loader';
import type { MaintenanceMethods, TokensMethods } from '@latchkey/contracts';
import type { MaintenanceDefinition } from './latchkey/internal/v1/Maintenance.js';
import type { TokensDefinition } from './latchkey/v1/Tokens.js';

type Wire<T> = T extends Uint8Array ? 'bytes'
  : T extends string ? string
  : T extends readonly (infer E)[] ? Wire<E>[]
  : T extends object ? { [K in keyof T]-?: Wire<Exclude<T[K], undefined>> }
  : T;
type Plain<T> = T extends object ? { -readonly [K in keyof T]: Plain<T[K]> } : T;
type Same<A, B> = (<T>() => T extends Plain<Wire<A>> ? 1 : 2) extends (<T>() => T extends Plain<Wire<B>> ? 1 : 2)
  ? true : false;
type Messages<M> = M extends { request: infer Q; response: infer A } ? [Q, A]
  : M extends { sent: infer Q; received: infer A } ? [Q, A] : never;
type OfProto<D> = { [K in keyof D as string extends K ? never : number extends K ? never : Uncapitalize<K & string>]:
  D[K] extends MethodDefinition<infer _I, infer _O, infer Q, infer A> ? [Q, A] : never };
type Different<Ours, Proto> =
  | Exclude<keyof Ours | keyof Proto, keyof Ours & keyof Proto>
  | { [K in keyof Ours & keyof Proto]: Same<Messages<Ours[K]>, Proto[K]> extends true ? never : K }[keyof Ours & keyof Proto];

// The compiler error names the methods that differ.
export const tokens: Record<Different<TokensMethods, OfProto<TokensDefinition>>, never> = {};
export const maintenance: Record<Different<MaintenanceMethods, OfProto<MaintenanceDefinition>>, never> = {};
`;

let dir: string;
beforeAll(() => {
  // Within the workspace, so that its packages are found.
  const dist = path.join(import.meta.dirname, '..', 'dist');
  mkdirSync(dist, { recursive: true });
  dir = mkdtempSync(path.join(dist, 'messages-'));
  writeFileSync(path.join(dir, 'equality.ts'), EQUALITY);
  const compilerOptions = { noEmit: true, composite: false, incremental: false, noUnusedLocals: false };
  const config = { extends: path.join(import.meta.dirname, '../../../tsconfig.base.json'), compilerOptions };
  writeFileSync(path.join(dir, 'tsconfig.json'), JSON.stringify({ ...config, files: ['equality.ts'] }));
});
afterAll(() => rmSync(dir, { recursive: true }));

/** The compiler's errors about our messages with these protos; empty when they are the same. */
async function differences(...protos: string[]): Promise<string> {
  await run(process.execPath, [GENERATOR, ...AS_READ, ...GENERATED, '-O', dir, ...protos]);
  return run(process.execPath, [COMPILER, '-p', dir, '--pretty', 'false']).then(
    () => '',
    (error: { stdout: string }) => error.stdout,
  );
}

it('every message of every method has the fields of the proto, with their types', async () => {
  expect(await differences(PROTO_FILE, INTERNAL_PROTO_FILE)).toBe('');
});

it('a difference at any depth is found, and the method is named', async () => {
  const changes: [from: string, to: string][] = [
    ['message ProjectGrant {', 'message ProjectGrant { bool more = 9;'],
    ['uint32 lease_ms', 'string lease_ms'],
    ['service Tokens {', 'service Tokens { rpc Other(Cursor) returns (Cursor);'],
  ];
  const proto = changes.reduce((text, [from, to]) => text.replace(from, to), readFileSync(PROTO_FILE, 'utf8'));
  const changed = path.join(dir, 'latchkey.proto');
  writeFileSync(changed, proto);
  const errors = await differences(changed, INTERNAL_PROTO_FILE);
  expect(errors.trimEnd().split(/: |, /).slice(-3).sort()).toEqual(['lookup', 'other', 'renew']);
});
