"""What a page reads of Redis: the shopper in one trip, the neighbour lists of her last items in another."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from redis import Redis

from functions.releases.loaded_release import LoadedRelease
from shared.adapters.keys import user_key
from shared.adapters.redis_connection import send_pipelined
from shared.adapters.redis_overlay import overlay_command
from shared.adapters.redis_releases import item_list_command, nightly_command
from shared.adapters.redis_shards import RedisShardReader
from shared.adapters.redis_state import state_errors
from shared.candidates.query import ListKind, Neighbours
from shared.features.overlay import NO_OVERLAY, Overlay, decode_overlay
from shared.features.shard import UserShard, newest_erasure
from shared.releases.lists import NeighbourList, NightlyRecord, decode_list, decode_record

MOST_HELD_LISTS: Final = 30_000
"""About 1 kB each."""

Lists = Mapping[tuple[ListKind, int], NeighbourList]


@dataclass(frozen=True, slots=True)
class ShopperRead:
    """A user's shards by (source, partition), None where there is none, and what the night knows of her."""

    shards: Mapping[tuple[str, int], UserShard | None]
    record: NightlyRecord | None
    overlay: Overlay = NO_OVERLAY
    """Of it only what the shards do not have yet."""

    @property
    def folded(self) -> dict[tuple[str, int], int]:
        """The last sequence folded into each shard, -1 where there is none."""
        return {part: -1 if shard is None else shard.sequence for part, shard in self.shards.items()}

    @property
    def visibility(self) -> dict[tuple[str, int], int]:
        """As `folded`, but -1 for a shard that an erasure voids: nothing of it is used."""
        erased_at = newest_erasure([shard for shard in self.shards.values() if shard is not None], self.overlay)
        return {
            part: -1 if shard is None or shard.erased_at < erased_at else shard.sequence
            for part, shard in self.shards.items()
        }


NOBODY = ShopperRead({}, None)
"""What is known of a user when the state cannot be read."""


class PageReader:
    """At most two pipelined trips a page, each one answer to wait for."""

    def __init__(self, client: Redis, shards: RedisShardReader, user_secret: str) -> None:
        self._client = client
        self._shards = shards
        self._secret = user_secret
        self._held: dict[tuple[str, ListKind, int], NeighbourList] = {}
        self._holding = threading.Lock()

    def shopper(self, user_id: str, release: LoadedRelease, *, record: bool = True) -> ShopperRead:
        """Her shards and overlay, and the nightly record unless it is not wanted.

        Raises StateUnavailable, or CorruptRecord when what is stored cannot be read.
        """
        user = user_key(user_id, self._secret)
        extra = [overlay_command(user)]
        if record and release.user_buckets:
            extra.append(nightly_command(release.release_id, release.user_buckets, user))
        read = self._shards.read_user_shards(user_id, release.items.sources, extra)
        shards = {
            (one.source, one.partition): None if one.shard is None else UserShard.decode(one.shard)
            for one in read.shards
        }
        overlay, *records = read.extra
        nightly = records[0] if records else None
        found = ShopperRead(shards, None if nightly is None else decode_record(release.release_id, nightly))
        return replace(found, overlay=decode_overlay(overlay).ahead_of(found.folded))

    def lists(self, release_id: str, kinds: Sequence[ListKind], indexes: Sequence[int]) -> Lists:
        """The neighbour lists there are; those read before come from memory, for a release's lists never change.

        Raises StateUnavailable, or CorruptRecord for a list of another release.
        """
        found: dict[tuple[ListKind, int], NeighbourList] = {}
        wanted: list[tuple[ListKind, int]] = []
        for key in itertools.product(kinds, indexes):
            held = self._held.get((release_id, *key))
            if held is None:
                wanted.append(key)
            else:
                found[key] = held
        if wanted:
            commands = [item_list_command(release_id, kind, index) for kind, index in wanted]
            with state_errors():
                answers = send_pipelined(self._client, commands)
            read = {key: decode_list(release_id, data) for key, data in zip(wanted, answers, strict=True) if data}
            self._hold(release_id, read)
            found |= read
        return found

    def _hold(self, release_id: str, read: Lists) -> None:
        """Keep what was read; beyond the limit, what was kept first goes first."""
        with self._holding:
            for (kind, index), one in read.items():
                self._held[release_id, kind, index] = one
            while len(self._held) > MOST_HELD_LISTS:
                del self._held[next(iter(self._held))]


def neighbours_of(lists: Lists, kind: ListKind, seeds: Sequence[int]) -> Neighbours:
    """The lists of the seeds as one padded block, in the seeds' order."""
    found = [lists.get((kind, seed)) for seed in seeds]
    width = max((len(one.indexes) for one in found if one is not None), default=0)
    indexes = np.full((len(found), width), -1, dtype=np.int32)
    scores = np.zeros((len(found), width), dtype=np.float32)
    for row, one in enumerate(found):
        if one is not None:
            indexes[row, : len(one.indexes)] = one.indexes
            scores[row, : len(one.indexes)] = one.columns[0]
    return Neighbours(indexes, scores)
