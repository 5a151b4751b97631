"""What the state, the log and the follower hold in the end, against the clean pass; every difference is one line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import batched
from typing import Any

import numpy as np
from redis import Redis

from shared.adapters.folder_blob import FolderBlobStore
from shared.adapters.keys import user_key
from shared.adapters.redis_state import RedisStateStore
from shared.catalog import CatalogEntry, decode_entry
from shared.errors import RecommndrError
from shared.features.fold import ItemCounters
from shared.features.items import ItemTable
from shared.features.shard import UserShard
from shared.features.state import EMPTY_AT, EntityState
from shared.ingest.lake import read_range
from shared.ingest.lake_sealed import read_sealed, sealed_files
from shared.ingest.state_versions import CURRENT_VERSION
from shared.ports import LandingRow, Touched, Verdict
from tests.chaos.clean_pass import CleanPartition, CleanPass
from tests.chaos.scale import SECRET, SOURCE, keys_of

TOLERANCE = 1e-9
"""Of the sum of absolute contributions; every contribution here is positive, so that sum is the value itself."""

_AT_ONCE = 500


@dataclass(slots=True)
class Differences:
    """What is not as in the clean pass; `lost` and `twice` count events."""

    lines: list[str] = field(default_factory=list)
    total: int = 0
    lost: int = 0
    twice: int = 0

    def add(self, line: str) -> None:
        """One more; the first ones are kept as text."""
        self.total += 1
        if len(self.lines) < 50:
            self.lines.append(line)

    def check(self, found: object, wanted: object, what: str) -> None:
        """Add a line unless both are equal."""
        if found != wanted:
            self.add(f"{what}: {_short(found)}, the clean pass has {_short(wanted)}")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


@dataclass(slots=True)
class FinalState:
    """A partition as Redis holds it, read through the port."""

    users: dict[str, bytes | None] = field(default_factory=dict)
    items: dict[int, bytes | None] = field(default_factory=dict)
    products: dict[int, bytes | None] = field(default_factory=dict)


def compare_partition(number: int, clean: CleanPartition, client: Redis, differences: Differences) -> FinalState:
    """User shards, item shards, catalogue and marks of one partition."""
    name = f"partition {number}"
    found = _read_all(number, clean, RedisStateStore(client, SECRET))
    for line in clean.disagreements:
        differences.add(f"the shard's ring and the naive one disagree at {line}")
    marks = RedisStateStore(client, SECRET).marks(SOURCE, number, CURRENT_VERSION.name)
    last = len(clean.verdicts) - 1
    for what, mark in zip(("log mark", "version's mark"), marks, strict=True):
        wanted = (last, clean.verdicts[last][1])
        differences.check(mark and (mark.sequence, mark.enqueued_at), wanted, f"{name} {what}")
    for user, shard in clean.users.items():
        _compare_user(f"{name} {user}", found.users[user], shard, differences)
    for item, counters in clean.items.items():
        _compare_item(f"{name} item {item:016x}", found.items[item], counters, differences)
    for product, entry in clean.products.items():
        differences.check(found.products[product], entry.encode(), f"{name} catalogue entry of {entry.item_id}")
    _refuse_strangers(number, clean, client, differences)
    return found


def _read_all(number: int, clean: CleanPartition, store: RedisStateStore) -> FinalState:
    found, version = FinalState(), CURRENT_VERSION.name
    for users in batched(clean.users, _AT_ONCE, strict=False):
        found.users |= store.read(SOURCE, number, [version], Touched(users=users)).versions[version].users
    for items in batched(clean.items, _AT_ONCE, strict=False):
        found.items |= store.read(SOURCE, number, [version], Touched(items=items)).versions[version].items
    for products in batched(clean.products, _AT_ONCE, strict=False):
        found.products |= store.read(SOURCE, number, [version], Touched(products=products)).products
    return found


def _compare_user(name: str, data: bytes | None, wanted: UserShard, differences: Differences) -> None:
    if data == wanted.encode():
        return
    if data is None:
        differences.add(f"{name}: there is no shard")
        differences.lost += 1
        return
    found = UserShard.decode(data)
    differences.check(found.erased_at, wanted.erased_at, f"{name} erased_at")
    if wanted.erased_at == EMPTY_AT or found.sequence > wanted.sequence:
        differences.check(found.sequence, wanted.sequence, f"{name} sequence")
        differences.check(found.enqueued_at, wanted.enqueued_at, f"{name} enqueued_at")
        differences.check(found.accepted, wanted.accepted, f"{name} ring")
    # else the night has taken her name from the lake's rows, so that a state rebuilt from it has not seen them
    differences.check(found.preferences_version, wanted.preferences_version, f"{name} preferences")
    _compare_state(name, found.state, wanted.state, differences)


def _compare_item(name: str, data: bytes | None, wanted: ItemCounters, differences: Differences) -> None:
    if data == wanted.encode():
        return
    if data is None:
        differences.add(f"{name}: there are no counters")
        differences.lost += 1
        return
    found = ItemCounters.decode(data).state
    _compare_state(name, found, wanted.state, differences)
    off = found.counts - wanted.state.counts  # a user's counts overlap; an item counts each event once
    differences.twice += int(off[off > 0].sum())
    differences.lost -= int(off[off < 0].sum())


def _compare_state(name: str, found: EntityState, wanted: EntityState, differences: Differences) -> None:
    differences.check(found.newest_at, wanted.newest_at, f"{name} newest time")
    differences.check(found.last_enqueued_at, wanted.last_enqueued_at, f"{name} last enqueued_at")
    differences.check(found.counts.tolist(), wanted.counts.tolist(), f"{name} counts")
    differences.check(found.earliest.tolist(), wanted.earliest.tolist(), f"{name} first times")
    differences.check(found.lists, wanted.lists, f"{name} lists")
    off = np.abs(found.decayed - wanted.decayed)
    far = off > TOLERANCE * np.abs(wanted.decayed)
    if far.any():
        differences.add(f"{name} decayed values: {off[far].tolist()} off {wanted.decayed[far].tolist()}")


def _refuse_strangers(number: int, clean: CleanPartition, client: Redis, differences: Differences) -> None:
    """Nothing may be there that the clean pass does not have."""
    keys, version = keys_of(number), CURRENT_VERSION.name
    wanted = {keys.user(version, user_key(user, SECRET)).encode() for user in clean.users}
    pattern = keys.user(version, b"") + "*"
    strange: Any = set(client.scan_iter(match=pattern, count=2000)) - wanted
    for name in sorted(strange):
        differences.add(f"{name.decode()} is a shard of nobody")
    differences.check(client.hlen(keys.items(version)), len(clean.items), f"partition {number} items")
    differences.check(client.hlen(keys.catalogue), len(clean.products), f"partition {number} catalogue")


def compare_log(
    number: int, clean: CleanPartition, client: Redis, blobs: FolderBlobStore, differences: Differences
) -> None:
    """Lake and landing: every coordinate, once after dedup, with the verdict and instant of the clean pass."""
    last = len(clean.verdicts) - 1
    try:
        lake = read_range(blobs, SOURCE, number, 0, last)
    except RecommndrError as error:
        differences.add(f"partition {number}: the lake cannot be read: {error}")
        return
    landing = RedisStateStore(client, SECRET).landing_rows(SOURCE, number, 0, last)
    rows: dict[int, LandingRow] = {}
    for row in (*lake, *landing):
        rows.setdefault(row.sequence, row)
    for sequence, wanted in enumerate(clean.verdicts):
        held = rows.get(sequence)
        if held is None or held.verdict is Verdict.SKIPPED:
            differences.lost += 1
        differences.check(held and (held.verdict, held.enqueued_at), wanted, f"partition {number} sequence {sequence}")
    for row in (*_every_copy(number, blobs), *landing):  # readers take any copy, so that all must say the same
        wanted = clean.verdicts[row.sequence]
        differences.check((row.verdict, row.enqueued_at), wanted, f"a copy of partition {number} row {row.sequence}")


def _every_copy(number: int, blobs: FolderBlobStore) -> Iterator[LandingRow]:
    for file in sealed_files(blobs, SOURCE, number):
        yield from read_sealed(blobs, file.name)


def compare_follower(table: ItemTable, finals: list[FinalState], differences: Differences) -> None:
    """The table that a snapshot in the middle and the feed made, against the merged shards: equal to the last bit."""
    fresh = ItemTable()
    for number, final in enumerate(finals):
        counters = {item: data for item, data in final.items.items() if data is not None}
        entries = [decode_entry(data) for data in final.products.values() if data is not None]
        fresh.load_part((SOURCE, number), counters, entries)
    differences.check(set(table.row_of), set(fresh.row_of), "items of the follower")
    for item in fresh.row_of.keys() & table.row_of.keys():
        differences.check(_row(table, item), _row(fresh, item), f"the follower's item {item:016x}")


def _row(table: ItemTable, item: int) -> tuple[Any, ...]:
    row, columns = table.row_of[item], table.counters
    entry: CatalogEntry = table.entry(row)
    return (
        int(columns.newest_at[row]),
        int(columns.last_enqueued_at[row]),
        columns.decayed[row].tobytes(),
        columns.counts[row].tobytes(),
        entry.encode(),
    )


def compare_all(clean: CleanPass, client: Redis, blobs: FolderBlobStore, follower: ItemTable | None) -> Differences:
    """Everything the promise covers."""
    differences = Differences()
    finals = []
    for number, partition in enumerate(clean.partitions):
        finals.append(compare_partition(number, partition, client, differences))
        compare_log(number, partition, client, blobs, differences)
    if follower is None:
        differences.add("no worker followed the items")
    else:
        compare_follower(follower, finals, differences)
    return differences
