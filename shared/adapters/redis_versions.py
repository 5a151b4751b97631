"""State versions in Redis: which are broken, where each stands, and clearing one so that it can be loaded anew."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from redis import Redis

from shared.adapters.keys import BROKEN_VERSIONS, PartitionKeys, state_version_of
from shared.adapters.landing_codec import decode_mark
from shared.adapters.redis_connection import Argument, send_pipelined
from shared.adapters.redis_scripts import FORGET_SHARD
from shared.adapters.redis_state import state_errors
from shared.events import EventSource
from shared.features.shard import peek_erased_at
from shared.ports import Mark

_SCAN_COUNT: Final = 2000
_MARK: Final = "mark"
_ROLES: Final = frozenset({"u", "i", "feed", "loader"})


@dataclass(frozen=True, slots=True)
class PartitionMarks:
    """The log's mark in one partition, and those of the state versions that have one."""

    log: Mark | None
    versions: Mapping[str, Mark]


class StateVersions:
    """Every method raises StateUnavailable when Redis does not answer."""

    def __init__(self, client: Redis) -> None:
        self._client = client

    def broken(self) -> dict[str, str]:
        """The state versions that are folded no longer, and why."""
        with state_errors():
            held: Any = self._client.hgetall(BROKEN_VERSIONS)
        return {name.decode(): reason.decode() for name, reason in held.items()}

    def mark_broken(self, version: str, reason: str) -> None:
        """No worker folds this version from now on; the first reason given stays."""
        with state_errors():
            self._client.hsetnx(BROKEN_VERSIONS, version, reason)

    def marks(self, source: EventSource, versions: Sequence[str]) -> list[PartitionMarks]:
        """Where each partition of the source stands, by its number; in one trip."""
        keys = [PartitionKeys(source.name, partition) for partition in source.partitions()]
        commands: list[tuple[Argument, ...]] = [
            ("GET", name) for one in keys for name in (one.log_mark, *(one.mark(version) for version in versions))
        ]
        with state_errors():
            answers = iter([decode_mark(answer) for answer in send_pipelined(self._client, commands)])
        found: list[PartitionMarks] = []
        for _ in keys:
            log_mark = next(answers)
            held = {version: next(answers) for version in versions}
            found.append(PartitionMarks(log_mark, {name: mark for name, mark in held.items() if mark is not None}))
        return found

    def stored(self) -> dict[str, int]:
        """Every state version that Redis holds keys of, and how many; looks at all keys."""
        found = Counter(
            name_and_version[1]
            for name in self._names("{*}:*:*")
            if (name_and_version := state_version_of(name)) and name_and_version[0] in {_MARK, *_ROLES}
        )
        return dict(sorted(found.items()))

    def clear(self, version: str) -> int:
        """Remove all state of a version, its marks first, then the word that it is broken; returns how many keys went.

        An interruption leaves a version that nobody folds where its mark is gone; clearing it again finishes.
        """
        removed = self._unlink(version, {_MARK}) + self._unlink(version, _ROLES)
        with state_errors():
            self._client.hdel(BROKEN_VERSIONS, version)
        return removed

    def forget_user(
        self, versions: Iterable[str], places: Iterable[tuple[str, int]], user: bytes, erased_at: int
    ) -> None:
        """Remove a user's shards, by her keyed hash, from these (source, partition) of versions that nobody folds.

        A shard with a tombstone of `erased_at` or later stays: a backfill is loading it. A version that is folded again
        catches up from the log, where her erasure is.
        """
        named = tuple(versions)
        keys = [PartitionKeys(*place).user(version, user) for place in places for version in named]
        with state_errors():
            held: list[Any] = send_pipelined(self._client, [("GET", key) for key in keys])
            for key, shard in zip(keys, held, strict=True):
                if shard is not None and peek_erased_at(shard) < erased_at:
                    FORGET_SHARD.run(self._client, [key], [shard])

    def _unlink(self, version: str, roles: frozenset[str] | set[str]) -> int:
        removed = 0
        batch: list[bytes] = []
        for name in self._names(f"{{*}}:*:{version}*"):
            found = state_version_of(name)
            if found is not None and found[1] == version and found[0] in roles:
                batch.append(name)
            if len(batch) >= _SCAN_COUNT:
                removed += self._send_unlinks(batch)
        return removed + self._send_unlinks(batch)

    def _send_unlinks(self, batch: list[bytes]) -> int:
        with state_errors():
            removed = sum(send_pipelined(self._client, [("UNLINK", name) for name in batch])) if batch else 0
        batch.clear()
        return removed

    def _names(self, pattern: str) -> Iterator[bytes]:
        with state_errors():
            yield from self._client.scan_iter(pattern, count=_SCAN_COUNT)
