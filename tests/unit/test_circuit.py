"""The circuit breaker and the lock under the items, with a clock and threads of the test's own."""

from __future__ import annotations

import threading

import pytest

from functions.circuit import FIRST_PAUSE_S, LONGEST_PAUSE_S, Circuit
from functions.read_write_lock import ReadWriteLock
from shared.errors import CorruptRecord, EventsRefused, StateUnavailable


class World:
    """A server that works or not, a clock, and how often each was asked."""

    def __init__(self) -> None:
        self.now = 100.0
        self.works = False
        self.calls = 0
        self.opened = 0
        self.circuit = Circuit(StateUnavailable, "redis", lambda: self.now, on_open=self._on_open)

    def _on_open(self) -> None:
        self.opened += 1

    def _server(self) -> str:
        self.calls += 1
        if not self.works:
            raise StateUnavailable("no answer")
        return "answer"

    def ask(self) -> str:
        return self.circuit.call(self._server)


def test_a_refusal_is_an_answer() -> None:
    world = World()

    def refuse() -> None:
        raise EventsRefused("not these")

    for _ in range(3):
        with pytest.raises(EventsRefused):
            world.circuit.call(refuse)
    assert (world.circuit.closed, world.opened) == (True, 0)
    with pytest.raises(StateUnavailable):
        world.ask()
    world.now += FIRST_PAUSE_S
    with pytest.raises(EventsRefused):
        world.circuit.call(refuse)
    assert world.circuit.closed


def test_after_a_fault_nobody_waits_until_the_pause_is_over_and_then_one_tries() -> None:
    world = World()
    with pytest.raises(StateUnavailable, match="no answer"):
        world.ask()
    for _ in range(10):
        with pytest.raises(StateUnavailable, match="a moment ago"):
            world.ask()
    assert world.calls == world.opened == 1
    world.now += FIRST_PAUSE_S
    world.works = True
    assert world.ask() == "answer"
    assert world.circuit.closed
    assert [world.ask() for _ in range(3)] == ["answer"] * 3


def test_the_pause_grows_to_its_limit_and_starts_small_again() -> None:
    world = World()
    pauses = []
    for _ in range(7):
        with pytest.raises(StateUnavailable, match="no answer"):
            world.ask()
        asked, began = world.calls, world.now
        while world.calls == asked:
            world.now += 0.05
            with pytest.raises(StateUnavailable):
                world.ask()
        pauses.append(world.now - began)
        world.now += LONGEST_PAUSE_S
    assert pauses == sorted(pauses)
    assert pauses[0] < 2 * FIRST_PAUSE_S + 0.1
    assert LONGEST_PAUSE_S - 0.1 < max(pauses) <= LONGEST_PAUSE_S + 0.1
    world.works = True
    assert world.ask() == "answer"
    world.works = False
    with pytest.raises(StateUnavailable, match="no answer"):
        world.ask()
    world.now += FIRST_PAUSE_S + 0.01
    world.works = True
    assert world.ask() == "answer"


def test_an_error_that_is_no_fault_of_the_server_leaves_it_closed() -> None:
    world = World()

    def corrupt() -> None:
        raise CorruptRecord("bad bytes")

    with pytest.raises(CorruptRecord):
        world.circuit.call(corrupt)
    assert world.circuit.closed


def test_readers_share_and_a_writer_is_alone_and_goes_first() -> None:
    lock = ReadWriteLock()
    inside: list[str] = []
    seen: list[list[str]] = []
    gate = threading.Event()
    both = threading.Barrier(3)

    def read(name: str) -> None:
        with lock.reading():
            inside.append(name)
            both.wait(5)
            gate.wait(5)
            inside.remove(name)

    def write() -> None:
        with lock.writing():
            seen.append(list(inside))
            order.append("writer")

    def late_read() -> None:
        with lock.reading():
            order.append("reader")

    order: list[str] = []
    readers = [threading.Thread(target=read, args=(name,)) for name in ("a", "b")]
    for reader in readers:
        reader.start()
    both.wait(5)
    assert sorted(inside) == ["a", "b"]
    writer = threading.Thread(target=write)
    writer.start()
    while not lock._writers_waiting:
        pass
    late = threading.Thread(target=late_read)
    late.start()
    assert order == []
    gate.set()
    for thread in (*readers, writer, late):
        thread.join(5)
    assert seen == [[]]
    assert order == ["writer", "reader"]
