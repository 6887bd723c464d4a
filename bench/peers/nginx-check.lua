-- The check of a Bearer token in nginx, as a careful team would write it: SHA-256 by OpenSSL through the FFI (the calls
-- that lua-resty-string makes, with the memory reused), one look-up in a shared dictionary, one search for the scope.
-- Everything here is compiled by LuaJIT; an entry is "<token id> <owner> <scope> <scope> ", so that no pattern is needed.
local ffi = require "ffi"
require "resty.core"

ffi.cdef [[
  typedef struct { unsigned int h[8], Nl, Nh, data[16], num, md_len; } latchkey_sha256;
  int SHA256_Init(latchkey_sha256 *);
  int SHA256_Update(latchkey_sha256 *, const void *, size_t);
  int SHA256_Final(unsigned char *, latchkey_sha256 *);
]]

local C, string_of = ffi.C, ffi.string
local find, sub, lower = string.find, string.sub, string.lower
local set_header, clear_header = ngx.req.set_header, ngx.req.clear_header
local context = ffi.new("latchkey_sha256")
local digest = ffi.new("unsigned char[32]")
local tokens = ngx.shared.tokens

local _M = {}

local function sha256(text)
  C.SHA256_Init(context)
  C.SHA256_Update(context, text, #text)
  C.SHA256_Final(digest, context)
  return string_of(digest, 32)
end

-- Lines of "<SHA-256 in hexadecimal> <entry>".
function _M.load(file)
  for line in io.lines(file) do
    local at = find(line, " ", 1, true)
    local hash = sub(line, 1, at - 1):gsub("..", function(byte) return string.char(tonumber(byte, 16)) end)
    assert(tokens:set(hash, sub(line, at + 1)))
  end
end

local function refuse(status, code)
  ngx.status = status
  ngx.header["WWW-Authenticate"] = 'Bearer error="' .. code .. '"'
  ngx.header["Content-Type"] = "application/json"
  ngx.print('{"error":"', code, '"}')
  return ngx.exit(status)
end

-- `scope` with a space before and after.
function _M.access(scope)
  local authorization = ngx.var.http_authorization
  if not authorization or lower(sub(authorization, 1, 7)) ~= "bearer " then return refuse(401, "invalid_token") end
  local entry = tokens:get(sha256(sub(authorization, 8)))
  if not entry then return refuse(401, "invalid_token") end
  local first = find(entry, " ", 1, true)
  local second = find(entry, " ", first + 1, true)
  if not find(entry, scope, second, true) then return refuse(403, "insufficient_scope") end
  set_header("X-Latchkey-Token-Id", sub(entry, 1, first - 1))
  set_header("X-Latchkey-Owner", sub(entry, first + 1, second - 1))
  set_header("X-Latchkey-Scopes", sub(entry, second + 1, -2))
  clear_header("X-Latchkey-Project")
  clear_header("Authorization")
end

return _M
