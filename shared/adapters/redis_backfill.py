"""Which ingested sources have their state in Redis, so that a history that was replaced can go."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Final

from redis import Redis

from shared.adapters.keys import HISTORY_SOURCES, source_pattern
from shared.adapters.redis_connection import Argument, send_pipelined
from shared.adapters.redis_state import state_errors

RETIRED_TTL_MS: Final = 7 * 24 * 3600 * 1000
"""A release made from a replaced history may serve for a while; a week is enough to publish the next one."""
_LOADED, _RETIRED = b"loaded", b"retired"
_SCAN_COUNT: Final = 2000


class HistorySources:
    """The register of ingested sources; every method raises StateUnavailable when Redis does not answer."""

    def __init__(self, client: Redis) -> None:
        self._client = client

    def begin(self, source: str) -> None:
        """Say that this source is in use, before any of it is loaded; what is left of one that had retired goes."""
        with state_errors():
            held: Any = self._client.hget(HISTORY_SOURCES, source)
        if held == _RETIRED:
            self._each_key(source, lambda name: ("UNLINK", name))
        with state_errors():
            self._client.hset(HISTORY_SOURCES, source, _LOADED)

    def retire_all_but(self, kept: Collection[str]) -> list[str]:
        """Let every source in use that is not in `kept` expire within a week, and return their names.

        An interruption leaves a source that is retired again next time.
        """
        with state_errors():
            held: Any = self._client.hgetall(HISTORY_SOURCES)
        gone = sorted(name.decode() for name, said in held.items() if said == _LOADED and name.decode() not in kept)
        for source in gone:
            self._each_key(source, lambda name: ("PEXPIRE", name, RETIRED_TTL_MS))
            with state_errors():
                self._client.hset(HISTORY_SOURCES, source, _RETIRED)
        return gone

    def _each_key(self, source: str, command: Callable[[bytes], tuple[Argument, ...]]) -> None:
        cursor = 0
        while True:
            with state_errors():
                answer: Any = self._client.scan(cursor, source_pattern(source), _SCAN_COUNT)
                cursor, names = answer
                send_pipelined(self._client, [command(name) for name in names])
            if cursor == 0:
                return
