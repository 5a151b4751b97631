"""What must not be shown: a small model of a shop that knows nothing of how the real one works."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Order = tuple[int, int]
"""Greater is newer: (epoch ms, hash) of a catalogue change, (0 dated back or 1, a running number) of a wish."""


@dataclass(frozen=True)
class ItemTruth:
    """A product as its acknowledged changes make it: per field the newest wins."""

    fields: Mapping[str, tuple[Order, Any]] = field(default_factory=dict)

    def changed(self, order: Order, changes: Mapping[str, Any]) -> ItemTruth:
        newer = {
            name: (order, value)
            for name, value in changes.items()
            if name not in self.fields or order > self.fields[name][0]
        }
        return ItemTruth({**self.fields, **newer})

    def value(self, name: str, default: Any) -> Any:
        return self.fields[name][1] if name in self.fields else default

    def objections(self) -> list[str]:
        """Why nobody may be shown it."""
        found = []
        if not self.value("title", ""):
            found.append("not described")
        if self.value("deleted", False):
            found.append("deleted")
        if self.value("hidden", False):
            found.append("hidden")
        if self.value("stock", None) == 0:
            found.append("out of stock")
        return found

    def unwanted(self, item_id: str, wishes: Mapping[str, Any]) -> list[str]:
        """Why this user may not be shown it."""
        price, path = self.value("price_cents", 0), self.value("categories", [])
        low, high = wishes.get("min_price_cents"), wishes.get("max_price_cents")
        found = []
        if item_id in wishes.get("hidden_items", ()):
            found.append("an item she hid")
        if set(path) & set(wishes.get("hidden_categories", ())):
            found.append("of a category she hid")
        if self.value("brand", None) in wishes.get("hidden_brands", ()):
            found.append("of a brand she hid")
        if (low is not None and price < low) or (high is not None and price > high):
            found.append("outside her prices")
        return found


@dataclass
class UserTruth:
    """What is acknowledged of a user. `acted` and `bought` hold items since she was last erased."""

    wishes: tuple[Order, Mapping[str, Any]] | None = None
    """As every worker must know it: by the overlay, or folded."""
    waiting: dict[int, tuple[Order, Mapping[str, Any]]] = field(default_factory=dict)
    """What only one worker knows, for Redis was away."""
    logged: tuple[Order, Mapping[str, Any]] | None = None
    acted: set[str] = field(default_factory=set)
    bought: set[str] = field(default_factory=set)
    buying: set[str] = field(default_factory=set)
    """Acknowledged and not folded."""
    erased: bool = False
    erased_waiting: int | None = None
    """The only worker that knows of her erasure so far."""

    def wants(self, worker: int) -> Mapping[str, Any]:
        """What this worker must obey."""
        known = [one for one in (self.wishes, self.waiting.get(worker)) if one is not None]
        return max(known, key=lambda one: one[0])[1] if known else {}

    def knows_erasure(self, worker: int) -> bool:
        return self.erased_waiting is None or self.erased_waiting == worker


@dataclass
class Truth:
    """The whole shop; `seen[worker]` are the items as that worker last followed them."""

    items: dict[str, ItemTruth] = field(default_factory=dict)
    folded: dict[str, ItemTruth] = field(default_factory=dict)
    seen: dict[int, dict[str, ItemTruth]] = field(default_factory=lambda: defaultdict(dict))
    users: dict[str, UserTruth] = field(default_factory=lambda: defaultdict(UserTruth))
    _ticks: int = 0

    def tick(self) -> int:
        self._ticks += 1
        return self._ticks

    def change(self, item_id: str, order: Order, changes: Mapping[str, Any]) -> None:
        self.items[item_id] = self.items.get(item_id, ItemTruth()).changed(order, changes)

    def wish(self, user: str, worker: int, wishes: Mapping[str, Any], *, late: bool, everywhere: bool) -> None:
        told = (0 if late else 1, self.tick()), wishes
        one = self.users[user]
        if everywhere:
            self._bring(one, worker)  # with it goes what waited of hers
        if late and one.erased:
            return  # it took effect before she was erased
        one.logged = _newest(one.logged, told)
        if everywhere:
            one.wishes = _newest(one.wishes, told)
        else:
            one.waiting[worker] = _newest(one.waiting.get(worker), told)

    def act(self, user: str, item_id: str, *, bought: bool) -> None:
        one = self.users[user]
        one.acted.add(item_id)
        if bought:
            one.buying.add(item_id)

    def erase(self, user: str, worker: int, *, everywhere: bool) -> None:
        self.users[user] = UserTruth(erased=True, erased_waiting=None if everywhere else worker)

    def keep_up(self, worker: int) -> None:
        for one in self.users.values():
            self._bring(one, worker)

    @staticmethod
    def _bring(one: UserTruth, worker: int) -> None:
        if one.erased_waiting == worker:
            one.erased_waiting = None
        if worker in one.waiting:
            one.wishes = _newest(one.wishes, one.waiting.pop(worker))

    def fold(self) -> None:
        self.folded = dict(self.items)
        for one in self.users.values():
            one.wishes = one.logged
            one.erased_waiting = None
            one.bought |= one.buying
            one.buying.clear()

    def follow(self, worker: int) -> None:
        self.seen[worker] = self.folded

    def objections(self, worker: int, item_ids: Iterable[str]) -> list[str]:
        return [
            f"{item_id} is {why}"
            for item_id in item_ids
            for why in self.seen[worker].get(item_id, ItemTruth()).objections()
        ]

    def unwanted(self, worker: int, user: str, item_ids: Iterable[str]) -> list[str]:
        wishes = self.users[user].wants(worker)
        return [
            f"{item_id} is {why}"
            for item_id in item_ids
            for why in self.seen[worker].get(item_id, ItemTruth()).unwanted(item_id, wishes)
        ]


def _newest[T](held: tuple[Order, T] | None, told: tuple[Order, T]) -> tuple[Order, T]:
    return told if held is None or told[0] > held[0] else held


class Tally:
    """What a run looked at, so that one that looks at nothing is noticed."""

    def __init__(self) -> None:
        self.steps = 0
        self.answers: Counter[str] = Counter()
        self.items = 0
        self.obeyed = 0
        self.flagged = 0
        self.away = 0
