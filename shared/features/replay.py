"""The log folded in a process of its own, without Redis: what training, candidates and the parity check stand on."""

from __future__ import annotations

from dataclasses import dataclass

from shared.events import BEHAVIOUR, Event, EventType
from shared.features.fold import fold_user
from shared.features.items import ItemTable
from shared.features.shard import Shopper, UserShard, merge_shards


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """An accepted event with its coordinates; `enqueued_at` in epoch ms."""

    source: str
    partition: int
    sequence: int
    enqueued_at: int
    event: Event


class UserShards:
    """Every user's shards, kept apart by (source, partition) as Redis keeps them."""

    def __init__(self) -> None:
        """No users."""
        self._shards: dict[str, dict[tuple[str, int], UserShard]] = {}

    def fold(self, logged: LoggedEvent) -> bool:
        """Fold into the user's shard; False when the event id was accepted before."""
        user_id = logged.event.subject
        if user_id is None:
            return True
        shards = self._shards.setdefault(user_id, {})
        shard = shards.get((logged.source, logged.partition))
        if shard is None:
            shard = shards[logged.source, logged.partition] = UserShard.empty()
        return fold_user(shard, logged.event, logged.enqueued_at, logged.sequence)

    def shopper(self, user_id: str, as_of: int) -> Shopper:
        """The user as a page would use her at `as_of`."""
        return merge_shards(self._shards.get(user_id, {}).values(), as_of).as_wished()

    def shards(self, user_id: str) -> dict[tuple[str, int], UserShard]:
        """Her shards by (source, partition)."""
        return self._shards.get(user_id, {})

    def user_ids(self) -> list[str]:
        """Everyone folded so far, in order of first appearance."""
        return list(self._shards)


class Replay:
    """Users and items folded together, event by event in the order given."""

    def __init__(self) -> None:
        """Nothing folded."""
        self.users = UserShards()
        self.items = ItemTable()

    def fold(self, logged: LoggedEvent) -> bool:
        """Fold one event for its user and its item; False for a duplicate, which counts for neither."""
        kind = logged.event.event_type
        if kind is EventType.ITEM_UPDATED:
            self.items.fold(logged.event, logged.enqueued_at)
            return True
        accepted = self.users.fold(logged)
        if accepted and kind in BEHAVIOUR:
            self.items.fold(logged.event, logged.enqueued_at)
        return accepted
