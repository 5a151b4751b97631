"""A user's overlay in Redis: one hash, read with her shards, written where an acknowledgement is at hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis import Redis

from shared.adapters.keys import DAY_MS, overlay_key, user_key
from shared.adapters.redis_connection import Argument, send_pipelined
from shared.adapters.redis_scripts import Script
from shared.adapters.redis_state import state_errors
from shared.catalog import FieldVersion
from shared.features.overlay import FIELDS, Overlay, Place, decode_overlay, encode_preferences

PREFERENCES_TTL_MS = 7 * DAY_MS
"""The fold has passed them long before; a tombstone has no such limit."""

_SET_PREFERENCES = Script("""#!lua
-- KEYS overlay; ARGV effective time, event hash in hex, value and place, time to live, '1': no time after this server's
-- Answer: 1 when they were newer than what was held, else 0.
local at = tonumber(ARGV[1])
if ARGV[5] == '1' then
  local time = redis.call('TIME')
  at = math.min(at, tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000))
end
local held = redis.call('HMGET', KEYS[1], 'at', 'id', 'e')
if held[3] and tonumber(held[3]) >= at then return 0 end
if held[1] then
  -- digit by digit in halves: 64 bits do not fit a number, and comparing strings depends on the server's locale
  local function half(id, first) return tonumber(string.sub(id, first, first + 7), 16) end
  local before, high, low = tonumber(held[1]), half(held[2], 1), half(held[2], 9)
  local new_high, new_low = half(ARGV[2], 1), half(ARGV[2], 9)
  local newer = at > before
  if at == before then newer = new_high > high or (new_high == high and new_low > low) end
  if not newer then return 0 end
end
redis.call('HSET', KEYS[1], 'at', string.format('%.0f', at), 'id', ARGV[2], 'p', ARGV[3])
if not held[3] then redis.call('PEXPIRE', KEYS[1], ARGV[4]) end
return 1
""")

_ERASE = Script("""#!lua
-- KEYS overlay; ARGV the erasure's instant. Preferences that are not newer go; the tombstone stays for good.
local erased_at = tonumber(ARGV[1])
local held = redis.call('HMGET', KEYS[1], 'e', 'at')
if held[1] and tonumber(held[1]) > erased_at then erased_at = tonumber(held[1]) end
redis.call('HSET', KEYS[1], 'e', string.format('%.0f', erased_at))
if held[2] and tonumber(held[2]) <= erased_at then redis.call('HDEL', KEYS[1], 'at', 'id', 'p') end
redis.call('PERSIST', KEYS[1])
return 'OK'
""")


def overlay_command(user: bytes) -> tuple[Argument, ...]:
    """What reads a user's overlay, by her keyed hash; `decode_overlay` takes the answer."""
    return ("HMGET", overlay_key(user), *FIELDS)


class RedisOverlays:
    """Newest wins, field by field, whoever writes and in whatever order."""

    def __init__(self, client: Redis, user_secret: str) -> None:
        self._client = client
        self._secret = user_secret

    def read(self, user_id: str) -> Overlay:
        """Her overlay; empty when there is none. Raises StateUnavailable, CorruptRecord."""
        with state_errors():
            answer: Sequence[Any] = send_pipelined(self._client, [overlay_command(user_key(user_id, self._secret))])[0]
        return decode_overlay(answer)

    def set_preferences(
        self, user_id: str, version: FieldVersion, place: Place | None = None, *, now_at_most: bool = False
    ) -> bool:
        """Write them unless newer ones, or a newer erasure, stand there; False when they do.

        `now_at_most` caps the effective time by the server's clock: for a broker that does not tell when it took the
        event, since clocks of workers differ. Raises StateUnavailable.
        """
        arguments: list[Argument] = [*encode_preferences(version, place), PREFERENCES_TTL_MS, int(now_at_most)]
        with state_errors():
            return bool(_SET_PREFERENCES.run(self._client, [self._key(user_id)], arguments))

    def erase(self, user_id: str, erased_at: int) -> None:
        """Void what she asked for up to `erased_at` (epoch ms), and keep the instant. Raises StateUnavailable."""
        with state_errors():
            _ERASE.run(self._client, [self._key(user_id)], [erased_at])

    def _key(self, user_id: str) -> str:
        return overlay_key(user_key(user_id, self._secret))
