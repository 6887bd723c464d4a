/** The configurations of nginx and HAProxy in the benchmarks. */
import { createHash } from 'node:crypto';
import { userInfo } from 'node:os';
import path from 'node:path';
import { upstreamBody } from '../peers/upstream-body.mjs';

/** @typedef {{ secret: string, id: string, owner: string, scopes: string[] }} Token */

/**
 * nginx with one worker, without logs, whose connections stay open.
 * @param {string} dir for its files
 * @param {string} http what is served
 * @param {string} [modules]
 */
export const nginx = (dir, http, modules = '') => `${modules}daemon off;
worker_processes 1;
${process.getuid?.() === 0 ? `user ${userInfo().username};\n` : ''}pid ${dir}/pid;
error_log stderr error;
events { worker_connections 4096; }
http {
  access_log off;
  keepalive_requests 1000000000;
  keepalive_timeout 120s;
${['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((what) => `  ${what}_temp_path ${dir}/${what};\n`).join('')}${http}
}
`;

/** A group of one server with connections that stay open. @param {string} name @param {number} port */
const upstream = (name, port) =>
  `  upstream ${name} { server 127.0.0.1:${port}; keepalive 64; keepalive_requests 1000000000; keepalive_timeout 120s; }\n`;

const kept = 'proxy_http_version 1.1; proxy_set_header Connection "";';

/** A small JSON response; at …/echo what arrived, for the test that comes before the measurement. @param {number} port */
export const nginxUpstream = (port) => `  server {
    listen 127.0.0.1:${port};
    default_type application/json;
    location / { return 200 '${upstreamBody}'; }
    location ~ /echo$ {
      return 200 '{"authorization":"$http_authorization","tokenId":"$http_x_latchkey_token_id","owner":"$http_x_latchkey_owner","scopes":"$http_x_latchkey_scopes","requestId":"$http_x_request_id","forwardedFor":"$http_x_forwarded_for"}';
    }
  }`;

/** @param {number} port @param {number} to */
export const nginxPlain = (port, to) => `${upstream('api', to)}  server {
    listen 127.0.0.1:${port};
    location / { proxy_pass http://api; ${kept} }
  }`;

/**
 * The check in Lua, and the headers that the gateway sets.
 * @param {number} port
 * @param {number} to
 * @param {{ packagePath: string, tokens: string, scope: string }} check `tokens`: a file, see `tokenLines`
 */
export const nginxLua = (
  port,
  to,
  { packagePath, tokens, scope },
) => `${upstream('api', to)}  lua_shared_dict tokens 10m;
  lua_package_path "${path.join(import.meta.dirname, '../peers')}/?.lua;${packagePath};";
  init_by_lua_block { require("nginx-check").load("${tokens}") }
  server {
    listen 127.0.0.1:${port};
    location / {
      access_by_lua_block { return require("nginx-check").access(" ${scope} ") }
      proxy_pass http://api;
      ${kept}
      proxy_set_header X-Request-Id $request_id;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header X-Forwarded-Host $http_host;
    }
  }`;

/**
 * Asks an authentication server for every request (auth_request).
 * @param {string} name
 * @param {number} port
 * @param {number} to the authentication server
 * @param {string} at its path
 */
export const nginxAuthRequest = (name, port, to, at) => `${upstream(name, to)}  server {
    listen 127.0.0.1:${port};
    location / { auth_request /auth; empty_gif; }
    location = /auth {
      internal;
      proxy_pass http://${name}${at};
      ${kept}
      proxy_pass_request_body off;
      proxy_set_header Content-Length "";
      proxy_set_header X-Forwarded-Method $request_method;
      proxy_set_header X-Forwarded-Uri $request_uri;
    }
  }
`;

const sha256 = (/** @type {string} */ text) => createHash('sha256').update(text).digest('hex');

/** What nginx-check.lua loads. @param {Token[]} tokens */
export const tokenLines = (tokens) =>
  tokens.map(({ secret, id, owner, scopes }) => `${sha256(secret)} ${id} ${owner} ${scopes.join(' ')} \n`).join('');

/** A map for HAProxy. @param {Token[]} tokens */
export const tokenMap = (tokens) =>
  tokens
    .map(
      ({ secret, id, owner, scopes }) =>
        `${sha256(secret).toUpperCase()} ${id}|${owner}|${scopes.join(' ')}|,${scopes.join(',')},\n`,
    )
    .join('');

/**
 * HAProxy with the check, and the headers that the gateway sets. One thread, no log.
 * @param {number} port
 * @param {number} to
 * @param {{ tokens: string, scope: string }} check `tokens`: a file, see `tokenMap`
 */
export const haproxy = (port, to, { tokens, scope }) => `global
  nbthread 1
  maxconn 4096
defaults
  mode http
  timeout connect 5s
  timeout client 120s
  timeout server 120s
  timeout http-keep-alive 120s
  http-reuse always
frontend front
  bind 127.0.0.1:${port}
  http-request set-var(txn.entry) "req.hdr(authorization),word(2,' '),sha2(256),hex,map_str(${tokens})"
  http-request deny deny_status 401 unless { req.hdr(authorization) -m beg -i "Bearer " } { var(txn.entry) -m found }
  http-request deny deny_status 403 unless { var(txn.entry) -m sub ",${scope}," }
  http-request set-header X-Latchkey-Token-Id "%[var(txn.entry),word(1,|)]"
  http-request set-header X-Latchkey-Owner "%[var(txn.entry),word(2,|)]"
  http-request set-header X-Latchkey-Scopes "%[var(txn.entry),word(3,|)]"
  http-request del-header X-Latchkey-Project
  http-request del-header Authorization
  http-request set-header X-Request-Id "%[uuid()]"
  http-request set-header X-Forwarded-For "%[src]"
  http-request set-header X-Forwarded-Proto http
  http-request set-header X-Forwarded-Host "%[req.hdr(host)]"
  default_backend api
backend api
  server api 127.0.0.1:${to}
`;
