"""Loading shards in bulk where no mark stands yet: what a backfill writes, fenced so that nothing comes late.

Who loads a partition leaves a token there first; the newest token wins. A straggler, or a backfill that another one
overtook, is refused by the very script that would have written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import batched
from typing import Final

from redis import Redis

from shared.adapters.keys import USER_SHARD_TTL_MS, PartitionKeys, item_field, user_key
from shared.adapters.landing_codec import encode_mark
from shared.adapters.redis_connection import Argument
from shared.adapters.redis_scripts import Script
from shared.ports import Mark, UserWrite

LOAD_BATCH: Final = 500
"""Shards that one trip of a load writes."""

_GUARD = """
if redis.call('EXISTS', KEYS[1]) == 1 then
  return redis.error_reply('MARKMOVED ' .. KEYS[1] .. ' stands: only a commit may change this state')
end
if (redis.call('GET', KEYS[2]) or '') ~= ARGV[1] then
  return redis.error_reply('MARKMOVED another backfill took over at ' .. KEYS[2])
end
"""

LOAD = Script(
    """#!lua
-- KEYS mark, loader, log mark, items, catalogue, users
-- ARGV token, items, products, (field, value)..., (field, value)..., (time to live, value)... of the users
-- Catalogue entries belong to the log: they are written only while the log has no mark either.
"""
    + _GUARD
    + """
local a = 3
for _ = 1, tonumber(ARGV[2]) do
  redis.call('HSET', KEYS[4], ARGV[a + 1], ARGV[a + 2]); a = a + 2
end
local products = redis.call('EXISTS', KEYS[3]) == 0
for _ = 1, tonumber(ARGV[3]) do
  if products then redis.call('HSET', KEYS[5], ARGV[a + 1], ARGV[a + 2]) end
  a = a + 2
end
for k = 6, #KEYS do
  local ttl = tonumber(ARGV[a + 1])
  if ttl > 0 then redis.call('SET', KEYS[k], ARGV[a + 2], 'PX', ttl) else redis.call('SET', KEYS[k], ARGV[a + 2]) end
  a = a + 2
end
return 'OK'
"""
)

FINISH = Script(
    """#!lua
-- KEYS mark, loader, log mark; ARGV token, the mark
"""
    + _GUARD
    + """
redis.call('SET', KEYS[3], ARGV[2], 'NX')
redis.call('SET', KEYS[1], ARGV[2])
redis.call('DEL', KEYS[2])
return 'OK'
"""
)


class PartitionLoad:
    """The load of one state version into one partition; methods raise what redis-py raises."""

    def __init__(self, client: Redis, source: str, partition: int, version: str, token: str) -> None:
        """`token` is what `begin` left; an empty one loads where nobody began."""
        self._client = client
        self._keys = PartitionKeys(source, partition)
        self._version = version
        self._token = token

    def begin(self) -> None:
        """Take the load over from whoever had it."""
        self._client.set(self._keys.loader(self._version), self._token)

    def users(self, secret: str, writes: Mapping[str, UserWrite]) -> None:
        """Write user shards."""
        for some in batched(writes.items(), LOAD_BATCH, strict=False):
            names = [self._keys.user(self._version, user_key(user, secret)) for user, _ in some]
            arguments = [part for _, write in some for part in (USER_SHARD_TTL_MS * write.expires, write.shard)]
            self._load(names, [0, 0, *arguments])

    def items(self, counters: Mapping[int, bytes]) -> None:
        """Write item counters."""
        for count, fields in _fields(counters):
            self._load([], [count, 0, *fields])

    def products(self, entries: Mapping[int, bytes]) -> None:
        """Write catalogue entries where the log has no mark."""
        for count, fields in _fields(entries):
            self._load([], [0, count, *fields])

    def finish(self, mark: Mark) -> None:
        """Write the version's mark, and the log's where it has none."""
        FINISH.run(self._client, self._names()[:3], [self._token, encode_mark(mark)])

    def _load(self, users: list[str], arguments: list[Argument]) -> None:
        LOAD.run(self._client, [*self._names(), *users], [self._token, *arguments])

    def _names(self) -> list[str]:
        keys = self._keys
        return [
            keys.mark(self._version),
            keys.loader(self._version),
            keys.log_mark,
            keys.items(self._version),
            keys.catalogue,
        ]


def _fields(values: Mapping[int, bytes]) -> Iterator[tuple[int, list[Argument]]]:
    for some in batched(values.items(), LOAD_BATCH, strict=False):
        yield len(some), [part for item, data in some for part in (item_field(item), data)]
