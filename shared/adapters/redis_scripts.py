"""The Lua scripts. Each declares all its keys, which share one hash tag, and so runs on a Redis cluster too."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha1
from typing import Any

from redis import Redis
from redis.exceptions import NoScriptError

from shared.adapters.keys import FEED_ENTRIES
from shared.adapters.redis_connection import Argument


class Script:
    """One script, called by its digest; a server that does not know it executed nothing and is sent the text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.digest = sha1(text.encode(), usedforsecurity=False).hexdigest()

    def run(self, client: Redis, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:  # noqa: ANN401 - a reply may be anything
        """Execute once. Raises what redis-py raises."""
        try:
            return client.evalsha(self.digest, len(keys), *keys, *arguments)
        except NoScriptError:
            return client.eval(self.text, len(keys), *keys, *arguments)


READ = Script("""#!lua flags=no-writes
-- KEYS log mark, catalogue, then for each version: mark, items, its users
-- ARGV versions, users of each version, item fields, then the item fields, then the catalogue fields
local versions, users, items = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local function fields(key, first, last)
  if last < first then return {} end
  return redis.call('HMGET', key, unpack(ARGV, first, last))
end
local function shards(first, last)
  if last < first then return {} end
  local found = redis.call('MGET', unpack(KEYS, first, last))
  for i = 1, #found do
    -- MGET calls a key of a wrong type absent, and the commit would write over it
    if not found[i] and redis.call('TYPE', KEYS[first + i - 1]).ok ~= 'none' then
      error({err = 'WRONGTYPE ' .. KEYS[first + i - 1] .. ' holds no shard'})
    end
  end
  return found
end
local answer = {redis.call('GET', KEYS[1]), fields(KEYS[2], 4 + items, #ARGV)}
local k = 2
for _ = 1, versions do
  local mark = redis.call('GET', KEYS[k + 1])
  answer[#answer + 1] = {mark, fields(KEYS[k + 2], 4, 3 + items), shards(k + 3, k + 2 + users)}
  k = k + 2 + users
end
return answer
""")

COMMIT = Script(
    """#!lua
-- KEYS log mark, landing, catalogue, then for each version: mark, items, feed, its users (those that expire first)
-- ARGV '1' when the log takes part, log mark before, mark after, id of the mark after, id of the first row or '', rows,
--   time to live of who expires, number of catalogue arguments, then these: field, value...
--   for each version: mark before, position before, touched, number of item arguments, users, users that expire,
--     then the item arguments (field, value...), then the users' shards
-- Redis undoes nothing when a later command fails: everything is checked before anything is written. What the server
-- itself may refuse (memory, a replica, a full disk, a key the user may not touch) it refuses before the first line.
-- A SET fails on no type: that no user's key is of another one, the read has found out.
local function expect_type(name, wanted)
  local found = redis.call('TYPE', name).ok
  if found ~= 'none' and found ~= wanted then
    error({err = 'WRONGTYPE ' .. name .. ' holds a ' .. found .. ', not a ' .. wanted})
  end
  return found
end
local function expect_mark(name, wanted)
  expect_type(name, 'string')
  local held = redis.call('GET', name) or ''
  if held ~= wanted then
    error({err = 'MARKMOVED ' .. name .. ' is "' .. held .. '", the chunk was folded on "' .. wanted .. '"'})
  end
end
local function expect_allowed(...)
  if redis.acl_check_cmd and not redis.acl_check_cmd(...) then
    error({err = 'NOPERM the user of this connection may not call ' .. table.concat({...}, ' ', 1, 2)})
  end
end
local function number_of(id) return tonumber(string.match(id, '^(%d+)')) end
local function expect_below(name, first)
  if expect_type(name, 'stream') == 'none' then return end
  local info = redis.call('XINFO', 'STREAM', name)
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' and number_of(info[i + 1]) >= number_of(first) then
      error({err = 'LOGAHEAD ' .. name .. ' already reaches ' .. info[i + 1] .. ', the chunk starts at ' .. first})
    end
  end
end

local log_in, log_before, mark_after, last_id = ARGV[1] == '1', ARGV[2], ARGV[3], ARGV[4]
local first_row, rows, products = ARGV[5], ARGV[6], tonumber(ARGV[8])
local time = redis.call('TIME')
local expires_at = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[7]))
local versions, a, k = {}, 9 + products, 3
while k < #KEYS do
  local counters, users = tonumber(ARGV[a + 3]), tonumber(ARGV[a + 4])
  versions[#versions + 1] = {
    mark = KEYS[k + 1], items = KEYS[k + 2], feed = KEYS[k + 3], before = ARGV[a], position = ARGV[a + 1],
    touched = ARGV[a + 2], counters = counters, first_counter = a + 6, users = users, expiring = tonumber(ARGV[a + 5]),
    first_key = k + 4, first_shard = a + 6 + counters,
  }
  a, k = a + 6 + counters + users, k + 3 + users
end
if k ~= #KEYS or a ~= #ARGV + 1 then error({err = 'MALFORMED the keys and arguments do not fit together'}) end

if log_in then
  expect_mark(KEYS[1], log_before)
  if first_row ~= '' then expect_below(KEYS[2], first_row) end
  expect_type(KEYS[3], 'hash')
  expect_allowed('SET', KEYS[1], '')
  expect_allowed('XADD', KEYS[2], '*', '', '')
  expect_allowed('HSET', KEYS[3], '', '')
end
for _, v in ipairs(versions) do
  expect_mark(v.mark, v.before)
  expect_type(v.items, 'hash')
  expect_below(v.feed, last_id)
  expect_allowed('SET', v.mark, '')
  if v.users > 0 then expect_allowed('SET', KEYS[v.first_key], '') end
  expect_allowed('HSET', v.items, '', '')
  expect_allowed('XADD', v.feed, '*', '', '')
end

local function put(name, first, count)
  for i = first, first + count - 1, 2000 do
    redis.call('HSET', name, unpack(ARGV, i, math.min(i + 1999, first + count - 1)))
  end
end
for _, v in ipairs(versions) do
  local user, shard = v.first_key, v.first_shard
  for i = 0, v.expiring - 1 do redis.call('SET', KEYS[user + i], ARGV[shard + i], 'PXAT', expires_at) end
  for i = v.expiring, v.users - 1 do redis.call('SET', KEYS[user + i], ARGV[shard + i]) end
  put(v.items, v.first_counter, v.counters)
end
if log_in then
  put(KEYS[3], 9, products)
  if first_row ~= '' then redis.call('XADD', KEYS[2], last_id, 'r', rows) end
  redis.call('SET', KEYS[1], mark_after)
end
for _, v in ipairs(versions) do
  redis.call('XADD', v.feed, 'MAXLEN', '~', __FEED_ENTRIES__, last_id, 'p', v.position, 'i', v.touched)
  redis.call('SET', v.mark, mark_after)
end
return 'OK'
""".replace("__FEED_ENTRIES__", str(FEED_ENTRIES))
)

POLL_FEED = Script("""#!lua flags=no-writes
-- KEYS mark, feed, items, catalogue; ARGV the feed position held, the most entries to follow
-- Answer: mark, reload, touched fields, their counters, their catalogue entries
local mark = redis.call('GET', KEYS[1])
local held = tonumber(ARGV[1])
local position = 0
if mark then position = tonumber(string.match(mark, '^(%d+)')) + 1 end
if position == held then return {mark, 0, {}, {}, {}} end
if position < held then return {mark, 1, {}, {}, {}} end
local entries = redis.call('XRANGE', KEYS[2], '(' .. ARGV[1] .. '-0', '+', 'COUNT', ARGV[2] + 1)
if #entries == 0 or #entries > tonumber(ARGV[2]) then return {mark, 1, {}, {}, {}} end
local seen, touched = {}, {}
for _, entry in ipairs(entries) do
  local before, items = entry[2][2], entry[2][4]
  if tonumber(before) > held then return {mark, 1, {}, {}, {}} end
  held = tonumber(string.match(entry[1], '^(%d+)'))
  for i = 1, #items, 8 do
    local field = string.sub(items, i, i + 7)
    if not seen[field] then seen[field] = true; touched[#touched + 1] = field end
  end
end
if held ~= position then return {mark, 1, {}, {}, {}} end
local counters, products = {}, {}
for i = 1, #touched, 2000 do
  local last = math.min(i + 1999, #touched)
  for _, value in ipairs(redis.call('HMGET', KEYS[3], unpack(touched, i, last))) do counters[#counters + 1] = value end
  for _, value in ipairs(redis.call('HMGET', KEYS[4], unpack(touched, i, last))) do products[#products + 1] = value end
end
return {mark, 0, touched, counters, products}
""")

APPEND = Script("""#!lua
-- KEYS log, clock; ARGV bodies. Answer: the first sequence and the broker's instant.
local position = 0
if redis.call('EXISTS', KEYS[1]) == 1 then
  local info = redis.call('XINFO', 'STREAM', KEYS[1])
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then position = tonumber(string.match(info[i + 1], '^(%d+)')) end
  end
end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local at = string.format('%.0f', math.max(now, tonumber(redis.call('GET', KEYS[2]) or '0')))
for i, body in ipairs(ARGV) do
  redis.call('XADD', KEYS[1], string.format('%.0f-0', position + i), 'e', at, 'b', body)
end
redis.call('SET', KEYS[2], at)
return {string.format('%.0f', position), at}
""")

SET_ALLOCATION = Script("""#!lua
-- KEYS allocation; ARGV its version, the document
local held = redis.call('GET', KEYS[1])
local version = 0
if held then version = cjson.decode(held).version end
if tonumber(ARGV[1]) ~= version + 1 then
  return redis.error_reply('MARKMOVED the allocation has version ' .. string.format('%.0f', version))
end
redis.call('SET', KEYS[1], ARGV[2])
return 'OK'
""")

FORGET_RECORD = Script("""#!lua
-- KEYS a bucket of nightly records; ARGV a user's keyed hash. Answer: 1 when her record was there.
if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('HSET', KEYS[1], '-' .. ARGV[1], '')
return 1
""")

FORGET_SHARD = Script("""#!lua
-- KEYS a user's shard of a state version that nobody folds; ARGV what it held when it was looked at
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('UNLINK', KEYS[1])
""")
