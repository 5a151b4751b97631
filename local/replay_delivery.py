"""How a replay keeps time, delivers until everything is acknowledged, and remembers how far it came."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from local.replay_source import Place
from shared.errors import BrokerUnavailable, CorruptRecord
from shared.events import Event, encode_event, from_ms
from shared.features.replay import LoggedEvent
from shared.ports import EventLog

MOST_AT_ONCE: Final = 500
FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 5.0
GIVE_UP_AFTER_S: Final = 300.0
"""Without any acknowledgement for so long the replay ends; it can go on later."""

type Recorded = tuple[Place, LoggedEvent]


class Pace:
    """When an event is due: as far after the start as it was after the first event, `speed` times faster."""

    def __init__(self, speed: float | None, seconds: Callable[[], float], sleep: Callable[[float], None]) -> None:
        """`speed` None is as fast as the broker takes them; `seconds` is a monotonic clock."""
        self._speed = speed
        self._seconds = seconds
        self._sleep = sleep
        self._begun_s: float | None = None
        self._first_at = 0
        self.behind_s = 0.0
        """How late the last event came out."""

    def due_after_ms(self, enqueued_at: int) -> float:
        """Milliseconds from the start to when an event of that instant is due."""
        return 0.0 if self._speed is None else (enqueued_at - self._first_at) / self._speed

    def batches(self, events: Iterable[Recorded]) -> Iterator[list[Recorded]]:
        """Events as they fall due, in order, at most 500 at once; it waits for the first of each."""
        batch: list[Recorded] = []
        for recorded in events:
            at = recorded[1].enqueued_at
            if self._begun_s is None:
                self._begun_s, self._first_at = self._seconds(), at
            if batch and (len(batch) >= MOST_AT_ONCE or self._wait_s(at) > 0):
                yield batch
                batch = []
            wait_s = self._wait_s(at)
            if wait_s > 0:
                self._sleep(wait_s)
            self.behind_s = max(0.0, -self._wait_s(at)) if self._speed else 0.0
            batch.append(recorded)
        if batch:
            yield batch

    def _wait_s(self, at: int) -> float:
        assert self._begun_s is not None
        return self._begun_s + self.due_after_ms(at) / 1000 - self._seconds()


class Delivery:
    """Hands batches to the broker log and comes back when every event is acknowledged."""

    def __init__(self, log: EventLog, seconds: Callable[[], float], sleep: Callable[[float], None]) -> None:
        self._log = log
        self._seconds = seconds
        self._sleep = sleep
        self.repeated = 0
        """Events that had to be sent again; the first sending may have arrived."""

    def deliver(self, events: Sequence[Event]) -> None:
        """Send until all are acknowledged, with a pause that doubles from 0.1 s to 5 s while none is.

        Raises BrokerUnavailable when for five minutes none was.
        """
        waiting = [(event.partition_key, encode_event(event)) for event in events]
        pause_s, since_s = FIRST_PAUSE_S, self._seconds()
        while waiting:
            left, reason = self._send(waiting)
            if len(left) < len(waiting):
                pause_s, since_s = FIRST_PAUSE_S, self._seconds()
            elif self._seconds() - since_s > GIVE_UP_AFTER_S:
                raise BrokerUnavailable(f"{len(left)} events were not acknowledged for {GIVE_UP_AFTER_S:g} s: {reason}")
            if left:
                self.repeated += len(left)
                self._sleep(pause_s)
                pause_s = min(LONGEST_PAUSE_S, pause_s * 2)
            waiting = left

    def _send(self, waiting: list[tuple[str, bytes]]) -> tuple[list[tuple[str, bytes]], str]:
        try:
            answers = self._log.append(waiting)
        except BrokerUnavailable as fault:
            return waiting, str(fault)
        left = [one for one, answer in zip(waiting, answers, strict=True) if answer is None]
        return left, "the broker log took the others"


class ProgressFile:
    """The place a replay has reached, in a small file; it is there while the replay is not finished."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> Place | None:
        """The place, or None where no replay is unfinished. Raises CorruptRecord."""
        try:
            return msgspec.json.decode(self.path.read_bytes(), type=Place)
        except FileNotFoundError:
            return None
        except msgspec.DecodeError as error:
            raise CorruptRecord(f"{self.path} cannot be read ({error}); delete it and begin with --anew") from error

    def write(self, place: Place) -> None:
        """Replace it whole."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_suffix(f".{os.getpid()}")
        fresh.write_bytes(msgspec.json.encode(place))
        fresh.replace(self.path)

    def clear(self) -> None:
        """The replay is finished, or begins anew."""
        self.path.unlink(missing_ok=True)


def moved(event: Event, occurred_at: int) -> Event:
    """The same event as if it had occurred at another instant (epoch ms)."""
    return msgspec.structs.replace(event, occurred_at=from_ms(occurred_at))
