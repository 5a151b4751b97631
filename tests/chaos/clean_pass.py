"""One clean pass: every record of the log once, in its partition's order, in memory: what all else must equal."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from shared.adapters.keys import user_key
from shared.catalog import CatalogEntry
from shared.errors import InvalidEvent
from shared.events import BEHAVIOUR, FUTURE_LIMIT_MS, EventType, decode_event, id_hash, keyed_user
from shared.features.fold import ItemCounters, fold_item, fold_user
from shared.features.shard import RING_SIZE, RING_SPAN_MS, UserShard
from shared.ports import LogRecord, Verdict
from tests.chaos.scale import SECRET
from tests.chaos.worker import poisoned


@dataclass(slots=True)
class NaiveRing:
    """The ids a user's partition remembers, written down as the rule says it: 24 h of log time, 256 at most."""

    ids: deque[tuple[str, int]] = field(default_factory=deque)

    def accepts(self, event_id: str, enqueued_at: int) -> bool:
        while self.ids and self.ids[0][1] < enqueued_at - RING_SPAN_MS:
            self.ids.popleft()
        if any(known == event_id for known, _ in self.ids):
            return False
        self.ids.append((event_id, enqueued_at))
        if len(self.ids) > RING_SIZE:
            self.ids.popleft()
        return True


@dataclass(slots=True)
class CleanPartition:
    """What one partition must hold in the end."""

    verdicts: list[tuple[Verdict, int]] = field(default_factory=list)
    """(verdict, enqueued_at) of each sequence from 0."""

    users: dict[str, UserShard] = field(default_factory=dict)
    items: dict[int, ItemCounters] = field(default_factory=dict)
    products: dict[int, CatalogEntry] = field(default_factory=dict)
    disagreements: list[str] = field(default_factory=list)
    """Where the shard's own ring decided otherwise than the naive one."""

    _rings: dict[str, NaiveRing] = field(default_factory=dict)

    def fold(self, record: LogRecord) -> None:
        """Take the next record."""
        assert record.sequence == len(self.verdicts), "the broker log counts without a hole"
        self.verdicts.append((self._judge(record), record.enqueued_at))

    def _judge(self, record: LogRecord) -> Verdict:
        try:
            event = decode_event(record.body)
        except InvalidEvent:
            return Verdict.DEAD
        if event.occurred_at_ms - record.enqueued_at > FUTURE_LIMIT_MS or poisoned(event.event_id):
            return Verdict.DEAD
        item = 0 if event.item_id is None else id_hash(event.item_id)
        if event.event_type is EventType.ITEM_UPDATED:
            assert event.item_id is not None
            entry = self.products.setdefault(item, CatalogEntry(item_id=event.item_id, fields={}))
            entry.apply(event, record.enqueued_at)
            return Verdict.ACCEPTED
        # Events name her by her id, erasures by its hash: here she has one name.
        user = keyed_user(user_key(str(event.subject), SECRET).hex())
        accepted = self._rings.setdefault(user, NaiveRing()).accepts(event.event_id, record.enqueued_at)
        if user not in self.users:
            self.users[user] = UserShard.empty()
        if fold_user(self.users[user], event, record.enqueued_at, record.sequence) is not accepted:
            self.disagreements.append(f"partition {record.partition} sequence {record.sequence}: accepted {accepted}")
        if not accepted:
            return Verdict.DUPLICATE
        if event.event_type in BEHAVIOUR:
            if item not in self.items:
                self.items[item] = ItemCounters.empty()
            fold_item(self.items[item], event, record.enqueued_at)
        return Verdict.ACCEPTED


@dataclass(slots=True)
class CleanPass:
    """All partitions."""

    partitions: list[CleanPartition]

    @classmethod
    def over(cls, records: Iterable[LogRecord], partition_count: int) -> CleanPass:
        """Fold the log's records, in order within each partition."""
        clean = cls([CleanPartition() for _ in range(partition_count)])
        for record in records:
            clean.partitions[record.partition].fold(record)
        return clean

    def verdicts(self) -> Counter[Verdict]:
        """How many records of each verdict."""
        return Counter(verdict for one in self.partitions for verdict, _ in one.verdicts)
