"""How many bytes a user's state takes: `python -m tests.benchmarks.state_bytes`.

A million users and ten million events are sampled: the user of rank r has r ** -0.8 of the first one's share of events
(Zipf: a twentieth of all users has more than about 22), in sessions of 8 on average on random days out of 60. Every
sampled user's whole history is folded; her shard's bytes are what Redis holds from her last event on, the ring of
accepted ids included, since nothing touches a shard until its user comes back. Key names and Redis' own structures come
on top. Every user of the sample stands for equally many others.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from shared.cli import command
from shared.events import Event, EventType, ItemId, UserId, from_ms
from shared.features.aggregations import DAY_MS, MINUTE_MS
from shared.features.fold import ItemCounters, fold_user
from shared.features.shard import UserShard
from tests.benchmarks.event_stream import EVENTS_A_SESSION, START_AT, USER_EXPONENT

USERS, EVENTS, SAMPLE, DAYS = 1_000_000, 10_000_000, 5_000, 60
ITEMS: Final = 100_000
_KINDS: Final = (EventType.VIEW, EventType.CART, EventType.REMOVE_FROM_CART, EventType.PURCHASE)
_KIND_WEIGHTS: Final = (80, 11, 3, 6)


def events_of_rank(rank: int, users: int, events: int) -> float:
    """Expected events of the user of this rank (from 1), by the integral of rank ** -0.8."""
    total = (users ** (1 - USER_EXPONENT) - 1) / (1 - USER_EXPONENT) + 1
    return float(events * rank**-USER_EXPONENT / total)


def history(draw: random.Random, count: int) -> list[tuple[int, Event]]:
    """(enqueued_at, event) of one user, in log order: sessions on random days, half a minute or so between events."""
    events: list[tuple[int, Event]] = []
    while len(events) < count:
        at = START_AT + draw.randrange(DAYS * DAY_MS)
        seen: list[int] = []
        for _ in range(min(count - len(events), 1 + int(draw.expovariate(1 / (EVENTS_A_SESSION - 1))))):
            at += int(draw.expovariate(2 / MINUTE_MS)) + 1
            kind = draw.choices(_KINDS, weights=_KIND_WEIGHTS)[0]
            again = kind is not EventType.VIEW and seen
            item = draw.choice(seen) if again else int(ITEMS ** draw.random())
            seen.append(item)
            event = Event(
                event_id=f"{draw.getrandbits(128):032x}",
                event_type=kind,
                occurred_at=from_ms(at - draw.randrange(400)),
                user_id=UserId("user"),
                item_id=ItemId(f"item-{item:06d}"),
                price_cents=199 + item * 7919 % 25_000,
            )
            events.append((at, event))
    return sorted(events, key=lambda one: one[0])


def measure(sample: int, seed: int) -> dict[str, Any]:
    """Sizes in bytes over the sampled users, and of an item's counters."""
    draw = random.Random(seed)
    sizes, rings, counts = [], [], []
    for place in range(sample):
        rank = int((place + draw.random()) * USERS / sample) + 1
        mean = events_of_rank(rank, USERS, EVENTS)
        count = int(mean) + (draw.random() < mean % 1)
        if count == 0:
            continue  # no event, no shard
        shard = UserShard.empty()
        for sequence, (at, event) in enumerate(history(draw, count)):
            fold_user(shard, event, at, sequence)
        sizes.append(len(shard.encode()))
        rings.append(len(shard.accepted.packed))
        counts.append(count)
    cuts = statistics.quantiles(sizes, n=100)
    return {
        "users": USERS,
        "events": EVENTS,
        "users_sampled": len(sizes),
        "events_sampled": sum(counts),
        "events_a_user": {"mean": round(statistics.mean(counts), 1), "p95": statistics.quantiles(counts, n=20)[-1]},
        "user_bytes": {
            "p50": cuts[49],
            "p95": cuts[94],
            "p99": cuts[98],
            "mean": round(statistics.mean(sizes), 1),
            "most": max(sizes),
        },
        "ring_bytes_mean": round(statistics.mean(rings), 1),
        "item_bytes": len(ItemCounters.empty().encode()),
        "million_users_mb": round(statistics.mean(sizes) * USERS / 1e6),
        "users_by_bytes": dict(sorted(Counter(min(size // 256 * 256, 2048) for size in sizes).items())),
    }


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Command line: 1 when the 95th percentile reaches a kilobyte."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.state_bytes", description=__doc__)
    parser.add_argument("--sample", type=int, default=SAMPLE, help="users to fold (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the sample (%(default)s)")
    arguments = parser.parse_args(argv)
    measured = measure(arguments.sample, arguments.seed)
    print(json.dumps(measured, indent=2))
    return 0 if measured["user_bytes"]["p95"] < 1000 else 1


if __name__ == "__main__":
    sys.exit(main())
