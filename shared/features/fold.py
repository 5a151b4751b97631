"""The one fold: how an event changes a user's shard and an item's counters, online, in backfill and in training."""

from __future__ import annotations

from shared.events import BEHAVIOUR, Event, EventType, effective_at, event_hash
from shared.features.aggregations import Layout
from shared.features.definitions import ITEM_LAYOUT
from shared.features.overlay import preferences_version
from shared.features.shard import UserShard
from shared.features.state import EntityState


def fold_user(shard: UserShard, event: Event, enqueued_at: int, sequence: int) -> bool:
    """Fold one event of this user into her shard, in place.

    Args:
        shard: of the partition the event came through.
        event: anything but item_updated.
        enqueued_at: the broker's clock, epoch ms.
        sequence: of the record in its partition.

    Returns:
        False when the event id was accepted before (a client's duplicate, which then counts nowhere).
    """
    shard.sequence, shard.enqueued_at = sequence, enqueued_at
    known_as = event_hash(event.event_id)
    if not shard.accepted.accepts(known_as, enqueued_at):
        return False
    if shard.state.expired(enqueued_at):
        shard.state = EntityState.empty(shard.state.layout)
    if event.event_type is EventType.USER_ERASED:
        _erase(shard, event.occurred_at_ms)
        return True
    at = effective_at(event.occurred_at_ms, enqueued_at)
    if at <= shard.erased_at:
        return True  # it was erased before it came
    if event.event_type in BEHAVIOUR:
        shard.state.add(event, enqueued_at)
    elif event.event_type is EventType.PREFERENCES_SET:
        version = preferences_version(event, enqueued_at)
        if shard.preferences_version is None or version[:2] > shard.preferences_version[:2]:
            shard.preferences_version = version
    return True


def _erase(shard: UserShard, erased_at: int) -> None:
    """Leave nothing of her but mark and ring.

    The instant names the erasure in whatever partition it comes through, so it is the client's. Who was erased at that
    instant or later already is a new user: an erasure sent again, or an older one, does not reach her.
    """
    if erased_at > shard.erased_at:
        shard.erased_at = erased_at
        shard.state = EntityState.empty(shard.state.layout)
        shard.preferences_version = None


class ItemCounters:
    """The behaviour counters of one item in one partition."""

    __slots__ = ("state",)

    def __init__(self, state: EntityState) -> None:
        """Around a state of the item layout."""
        self.state = state

    @classmethod
    def empty(cls, layout: Layout = ITEM_LAYOUT) -> ItemCounters:
        """Nothing counted yet."""
        return cls(EntityState.empty(layout, layout.whole))

    @classmethod
    def decode(cls, data: bytes, layout: Layout = ITEM_LAYOUT) -> ItemCounters:
        """The inverse of `encode` under the same layout."""
        return cls(EntityState.decode(layout, data))

    def encode(self) -> bytes:
        """Bytes of one size for all items (`items.counters_dtype`): an item holds all slots from the start."""
        return self.state.encode()


def fold_item(counters: ItemCounters, event: Event, enqueued_at: int) -> None:
    """Count one accepted behaviour event of this item, in place.

    An item that was idle for 400 days is judged where it is read, on the newest enqueued_at over all its shards.
    """
    counters.state.add(event, enqueued_at)
