"""Who dies next, where and when: drawn by seed, every named point before any comes again."""

from __future__ import annotations

import random
from collections import Counter, deque
from dataclasses import dataclass, field

from tests.chaos.points import BACKFILL, REFILL, STREAM, Point
from tests.chaos.scale import CHUNK, Scale
from tests.chaos.worker import Life

_RANDOM_SHARE = 0.2
_CUT_S = 0.25
"""A worker that dies at random does so within this time on average."""


@dataclass(slots=True)
class Deaths:
    """The budget of kills and what it was spent on."""

    scale: Scale
    seed: int
    spent: Counter[Point] = field(default_factory=Counter)
    promised: int = 0
    """Kills of children that live."""

    kept_back: int = 0
    """Kills that coming faults will need."""

    missed: int = 0
    """Kills that came before the point they were planned for: as many more are dealt out."""

    refills: int = 0
    """So many of the next lives die while they refill."""

    lives: int = 0
    _draw: random.Random = field(init=False)
    _stream: deque[Point] = field(default_factory=deque)
    _refill: deque[Point] = field(default_factory=deque)
    _backfill: deque[Point] = field(default_factory=deque)

    def __post_init__(self) -> None:
        """Seed the draws."""
        self._draw = random.Random(f"deaths {self.seed}")

    @property
    def done(self) -> int:
        """Kills so far."""
        return self.spent.total()

    @property
    def budget(self) -> int:
        """Kills of the whole run."""
        return self.scale.kills + self.missed

    @property
    def left(self) -> int:
        """Kills that nobody has been promised."""
        return self.budget - self.done - self.promised

    def next_life(self, events_left: int, *, pair: bool) -> Life:
        """The next worker's life; `pair` says that another one works beside it."""
        self.lives += 1
        stalls = tuple(self._draw.sample(range(1, 8), 2)) if pair else ()
        if pair and self.scale.tiny:
            stalls = tuple(range(2, 100, 2))
        point, calls = self._next_death(events_left)
        return Life(self.lives, point, calls, stalls)

    def _next_death(self, events_left: int) -> tuple[Point | None, int]:
        if self.refills and self.left > 0:
            self.refills -= 1
            point = _turn(self._refill, [REFILL], self._draw)
            most = 1 if point is Point.REFILL_LAKE else 2 if self.scale.small else 4  # one look fills many chunks
            return point, self._draw.randrange(1, most + 1)
        left = self.left - self.kept_back
        if left <= 0:
            return None, 0
        point = _turn(self._stream, STREAM, self._draw)
        if self.done >= len(STREAM) and self._draw.random() < _RANDOM_SHARE:
            self._stream.appendleft(point)
            return Point.RANDOM, 1
        chunks = events_left / CHUNK / left
        if point in {Point.SEAL_READ, Point.SEAL_TRIMMED, Point.SEAL_WRITTEN}:
            chunks /= 3
        return point, self._draw.randrange(1, 2 + max(1, round(2 * chunks)))

    def backfill_death(self) -> tuple[Point, int]:
        """Where the next backfill dies."""
        point = _turn(self._backfill, [BACKFILL], self._draw)
        return point, self._draw.randrange(1, 3) if self.scale.small else self._draw.randrange(1, 4)

    def cut_after_s(self) -> float:
        """How long the next worker lives that dies at a random instant."""
        return self._draw.expovariate(1 / _CUT_S)

    def again(self, point: Point, *, streaming: bool) -> None:
        """A planned death did not come; it is planned once more, beyond the budget while there are events to come."""
        self.missed += streaming
        for queue, members in ((self._refill, REFILL), (self._backfill, BACKFILL)):
            if point in members:
                queue.appendleft(point)
                return
        if point is not Point.RANDOM:
            self._stream.appendleft(point)


def _turn(queue: deque[Point], groups: list[tuple[Point, ...]], draw: random.Random) -> Point:
    """The next of the queue; when it is empty it is filled with one point of each group, then with all others."""
    if not queue:
        first = [draw.choice(group) for group in groups]
        rest = [point for group in groups for point in group if point not in first]
        draw.shuffle(first)
        draw.shuffle(rest)
        queue.extend([*first, *rest])
    return queue.popleft()
