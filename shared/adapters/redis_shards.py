"""The feature state in Redis, as those who read it see it: a user's shards, and all items with their changes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from redis import Redis

from shared.adapters.keys import PartitionKeys, item_hash_of, user_key
from shared.adapters.landing_codec import decode_mark
from shared.adapters.redis_connection import Argument, send_pipelined
from shared.adapters.redis_scripts import POLL_FEED
from shared.adapters.redis_state import state_errors
from shared.errors import StateUnavailable
from shared.events import EventSource
from shared.ports import Mark

MOST_FEED_ENTRIES = 256
"""Who is further behind reloads: one look at more touched items would hold the server up."""

_SNAPSHOT_TRIES = 5


@dataclass(frozen=True, slots=True)
class UserShardRead:
    """One user's shard in one partition; None where there is none."""

    source: str
    partition: int
    shard: bytes | None


@dataclass(frozen=True, slots=True)
class UserRead:
    """A user's shards, and the answers to the commands that rode along, in their order."""

    shards: list[UserShardRead]
    extra: list[Any]


@dataclass(frozen=True, slots=True)
class FeedSlice:
    """What changed in a partition's items since a position: all of it, at `mark`; or `reload`.

    `last_id` is the position to ask from next time. An item that has no counters or no entry is not in that mapping.
    """

    mark: Mark | None
    last_id: int
    counters: dict[int, bytes] = field(default_factory=dict)
    entries: dict[int, bytes] = field(default_factory=dict)
    reload: bool = False


@dataclass(frozen=True, slots=True)
class ItemSnapshot:
    """All items of a partition at `mark`; `last_id` is the feed position to follow from."""

    mark: Mark | None
    last_id: int
    counters: dict[int, bytes]
    entries: dict[int, bytes]


class RedisShardReader:
    """Reads one state version's shards."""

    def __init__(self, client: Redis, user_secret: str, state_version: str) -> None:
        self._client = client
        self._secret = user_secret
        self._version = state_version

    def read_user_shards(
        self, user_id: str, sources: Sequence[EventSource], extra: Sequence[tuple[Argument, ...]] = ()
    ) -> UserRead:
        """The user's shard in every partition of every source that may hold her, in one pipelined trip.

        `extra` are commands (name, arguments...) to send in the same trip, such as an HGET of her nightly record.
        Raises StateUnavailable.
        """
        user = user_key(user_id, self._secret)
        places = [(source.name, partition) for source in sources for partition in source.partitions_of(user_id)]
        commands: list[tuple[Argument, ...]] = [
            ("GET", PartitionKeys(source, partition).user(self._version, user)) for source, partition in places
        ]
        with state_errors():
            answers = send_pipelined(self._client, [*commands, *extra])
        shards = [UserShardRead(*place, shard) for place, shard in zip(places, answers, strict=False)]
        return UserRead(shards, answers[len(places) :])

    def poll_feed(self, source: str, partition: int, after_id: int) -> FeedSlice:
        """Everything that changed since `after_id` (0 is the beginning), in one read-only look.

        `reload` says that the feed no longer reaches back to `after_id`, or that the state is older than that (a
        restored copy): take a snapshot. Raises StateUnavailable.
        """
        keys = PartitionKeys(source, partition)
        names = [keys.mark(self._version), keys.feed(self._version), keys.items(self._version), keys.catalogue]
        with state_errors():
            answer = POLL_FEED.run(self._client, names, [after_id, MOST_FEED_ENTRIES])
        mark, reload, touched, counters, entries = answer
        held = decode_mark(mark)
        items = [item_hash_of(item) for item in touched]
        return FeedSlice(
            mark=held,
            last_id=_position(held),
            counters={item: data for item, data in zip(items, counters, strict=True) if data is not None},
            entries={item: data for item, data in zip(items, entries, strict=True) if data is not None},
            reload=bool(reload),
        )

    def snapshot_items(self, source: str, partition: int) -> ItemSnapshot:
        """All items: the feed position first, then the hashes page by page, then what changed meanwhile.

        Raises:
            StateUnavailable: Redis does not answer, or the feed outran every try.
        """
        keys = PartitionKeys(source, partition)
        for _ in range(_SNAPSHOT_TRIES):
            with state_errors():
                mark: Any = self._client.get(keys.mark(self._version))
                start = _position(decode_mark(mark))
                counters = dict(self._scan(keys.items(self._version)))
                entries = dict(self._scan(keys.catalogue))
            changes = self.poll_feed(source, partition, start)
            if not changes.reload:
                counters.update(changes.counters)
                entries.update(changes.entries)
                return ItemSnapshot(changes.mark, changes.last_id, counters, entries)
        raise StateUnavailable(f"{source} partition {partition}: the feed outran {_SNAPSHOT_TRIES} snapshots")

    def _scan(self, key: str) -> Iterator[tuple[int, bytes]]:
        for item, data in self._client.hscan_iter(key, count=2000):
            yield item_hash_of(item), data


def _position(mark: Mark | None) -> int:
    return 0 if mark is None else mark.sequence + 1
