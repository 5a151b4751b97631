"""A user's overlay in Redis: one hash, read with her shards, written where an acknowledgement is at hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redis import Redis

from shared.adapters.keys import DAY_MS, OVERLAY_CHANGES, overlay_key, user_key
from shared.adapters.redis_connection import Argument, send_pipelined
from shared.adapters.redis_scripts import Script
from shared.adapters.redis_state import state_errors
from shared.catalog import FieldVersion
from shared.features.overlay import FIELDS, Overlay, Place, decode_overlay, encode_preferences

PREFERENCES_TTL_MS = 7 * DAY_MS
"""The fold has passed them long before; a tombstone has no such limit."""

CHANGES_KEPT = 10_000
"""About so many changes are remembered ..."""
MOST_CHANGES = 5_000
"""... and who is this far behind must not trust anything it holds."""

Order = tuple[int, int]
"""(effective time in epoch ms, event hash) of preferences: the greatest wins."""

NEVER_SET: Order = (-(1 << 63), 0)
LAST_OF_INSTANT = (1 << 64) - 1
"""In place of an event hash: whatever took effect at an erasure's instant is void."""

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


@dataclass(frozen=True, slots=True)
class Changes:
    """Whose overlay was written since a position, by keyed hash, with the newest order; None: it cannot be told."""

    position: bytes
    orders: dict[bytes, Order] | None


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
        user = user_key(user_id, self._secret)
        with state_errors():
            written = bool(_SET_PREFERENCES.run(self._client, [overlay_key(user)], arguments))
            self._announce(user, version[:2])  # after the write: who rereads at once must find it
        return written

    def erase(self, user_id: str, erased_at: int) -> None:
        """Void what she asked for up to `erased_at` (epoch ms), and keep the instant. Raises StateUnavailable."""
        user = user_key(user_id, self._secret)
        with state_errors():
            _ERASE.run(self._client, [overlay_key(user)], [erased_at])
            self._announce(user, (erased_at, LAST_OF_INSTANT))

    def changes_since(self, position: bytes | None) -> Changes:
        """What was written after `position`; None for who begins to listen now. Raises StateUnavailable."""
        with state_errors():
            if position is None:
                newest: Any = self._client.xrevrange(OVERLAY_CHANGES, count=1)
                return Changes(newest[0][0] if newest else b"0-0", None)
            entries: Any = self._client.xrange(OVERLAY_CHANGES, min=b"(" + position, count=MOST_CHANGES)
        if len(entries) >= MOST_CHANGES:
            return self.changes_since(None)
        orders: dict[bytes, Order] = {}
        for _, fields in entries:
            user, order = fields[b"u"], (int(fields[b"at"]), int(fields[b"id"], 16))
            orders[user] = max(order, orders.get(user, NEVER_SET))
        return Changes(entries[-1][0] if entries else position, orders)

    def _announce(self, user: bytes, order: Order) -> None:
        fields: dict[Any, Any] = {"u": user, "at": order[0], "id": f"{order[1]:016x}"}
        self._client.xadd(OVERLAY_CHANGES, fields, maxlen=CHANGES_KEPT, approximate=True)
