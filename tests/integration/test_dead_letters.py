"""Dead letters are found wherever their rows lie, and a replay loses none and counts none twice, whenever it dies."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from batch.compact_lake import compact
from local.dead_letters import main
from local.embedded import EmbeddedServers
from shared.adapters.folder_blob import FolderBlobStore
from shared.adapters.redis_log import RedisEventLog
from shared.adapters.redis_state import RedisStateStore
from shared.errors import ConfigurationError
from shared.events import EventSource
from shared.features.fold import ItemCounters
from shared.ingest.dead_letters import (
    DeadLetter,
    Fate,
    LetterId,
    ReplayRecord,
    Wanted,
    dead_letters,
    read_record,
    replay,
)
from shared.ingest.fold_chunk import AnyVersion
from shared.ingest.lake import LakeManifest, ShopSettings, read_range, write_manifest
from shared.ingest.processor import PartitionProcessor
from shared.ingest.seal import seal_partition
from shared.ingest.state_versions import CURRENT_VERSION
from shared.ports import Appended, LandingRow, Verdict
from shared.settings import SECRET_DEFAULT

SOURCE = EventSource("live-1", (1,))
NOW = 1_790_000_000_000
ALL = Wanted()


def body(event_id: str, occurred_at: str = "2026-05-28T20:00:00Z") -> bytes:
    event = {
        "event_id": event_id, "event_type": "view", "occurred_at": occurred_at, "user_id": "ann", "item_id": "lamp",
    }  # fmt: skip
    return json.dumps(event).encode()


@dataclass
class Stream:
    """One partition over real servers: a producer, a consumer, its lake."""

    blobs: FolderBlobStore
    store: RedisStateStore
    log: RedisEventLog
    client: Redis
    consumed: int = -1
    published: list[bytes] = field(default_factory=list)

    def append(self, *bodies: bytes) -> None:
        self.log.append([("ann", one) for one in bodies])

    def fold(self, version: AnyVersion = CURRENT_VERSION) -> None:
        processor = PartitionProcessor(
            SOURCE.name, 0, store=self.store, versions=[version], blobs=self.blobs, broker=self.log
        )
        while records := self.log.read(0, self.consumed, 100):
            processor.process(records)
            self.consumed = records[-1].sequence

    def seal(self) -> None:
        seal_partition(SOURCE.name, 0, store=self.store, blobs=self.blobs)

    def letters(self, wanted: Wanted = ALL) -> list[DeadLetter]:
        return dead_letters(self.blobs, self.store, [SOURCE], wanted)

    def replay(self, letters: Sequence[DeadLetter], *, blobs: Any = None, producer: Any = None) -> list[Fate]:
        done = replay(
            letters,
            blobs=blobs or self.blobs,
            store=self.store,
            streams=[SOURCE],
            producer=producer or self.log,
            clock=lambda: NOW,
        )
        return [fate for _, fate in done]

    def rows(self) -> list[LandingRow]:
        landed = self.store.oldest_landing_rows(SOURCE.name, 0, 10_000)
        return sorted([*read_range(self.blobs, SOURCE.name, 0, 0, 10**6), *landed], key=lambda row: row.sequence)

    def views(self) -> int:
        counters: Any
        (counters,) = self.client.hvals(f"{{{SOURCE.name}.0}}:i:{CURRENT_VERSION.name}")
        return int(ItemCounters.decode(counters).state.counts.sum())


@pytest.fixture
def stream(state_client: Redis, log_client: Redis, tmp_path: Path) -> Stream:
    store = RedisStateStore(state_client, SECRET_DEFAULT)
    return Stream(FolderBlobStore(tmp_path), store, RedisEventLog(log_client, SOURCE.name, 1), state_client)


@pytest.fixture
def five(stream: Stream, world: Any) -> Stream:
    """Sequences 0 to 5: fine, folded badly, from the future, no JSON, no text, fine."""
    stream.append(body("fine"), body("poison"), body("far", "2199-01-01T00:00:00Z"), b"{", b"\xff\xfe", body("last"))
    stream.fold(world.poisoned({"poison"}))
    return stream


def ids(letters: Sequence[DeadLetter]) -> list[int]:
    return [letter.id.sequence for letter in letters]


@pytest.mark.parametrize("where", ["landing", "sealed", "compacted"])
def test_dead_letters_are_found_wherever_their_rows_lie(five: Stream, where: str) -> None:
    if where != "landing":
        five.seal()
    if where == "compacted":
        write_manifest(five.blobs, LakeManifest(version=1, shop=ShopSettings()))
        compact(five.blobs, SOURCE)
    found = five.letters()
    assert ids(found) == [1, 2, 3, 4]
    assert [letter.event.event_id if letter.event else None for letter in found] == ["poison", "far", None, None]
    assert found[3].row.body == b"\xff\xfe"
    at = found[1].row.enqueued_at
    for wanted, expected in (
        (Wanted(reason="ZERODIVISION"), [1]),
        (Wanted(reason="undecodable"), [3, 4]),
        (Wanted(ids={LetterId(SOURCE.name, 0, 2), LetterId(SOURCE.name, 0, 5)}), [2]),
        (Wanted(source="live-2"), []),
        (Wanted(partition=1), []),
        (Wanted(partition=0, since=at), [one for one in (1, 2, 3, 4) if found[one - 1].row.enqueued_at >= at]),
        (Wanted(since=at + 3_600_000), []),
    ):
        assert ids(five.letters(wanted)) == expected, wanted


class Dies(BaseException):
    """What ends the process at a chosen place."""


class DyingBlobs:
    """Ends the process before or after the n-th write."""

    def __init__(self, blobs: FolderBlobStore, write: int, *, before: bool) -> None:
        self._blobs = blobs
        self._left = write
        self._before = before

    def __getattr__(self, name: str) -> Any:
        return getattr(self._blobs, name)

    def write(self, name: str, data: bytes) -> None:
        self._left -= 1
        if self._left == 0 and self._before:
            raise Dies
        self._blobs.write(name, data)
        if self._left == 0:
            raise Dies


class DyingLog:
    """Ends the process before or after the event was published."""

    def __init__(self, log: RedisEventLog, *, before: bool) -> None:
        self._log = log
        self._before = before

    def append(self, events: Sequence[tuple[str, bytes]]) -> list[Appended | None]:
        if not self._before:
            self._log.append(events)
        raise Dies


DEATHS: dict[str, Callable[[Stream], dict[str, Any]]] = {
    "before the intent": lambda stream: {"blobs": DyingBlobs(stream.blobs, 1, before=True)},
    "after the intent": lambda stream: {"blobs": DyingBlobs(stream.blobs, 1, before=False)},
    "before publishing": lambda stream: {"producer": DyingLog(stream.log, before=True)},
    "after publishing": lambda stream: {"producer": DyingLog(stream.log, before=False)},
    "before recording": lambda stream: {"blobs": DyingBlobs(stream.blobs, 2, before=True)},
    "after recording": lambda stream: {"blobs": DyingBlobs(stream.blobs, 2, before=False)},
}
IN_STREAM = {"after publishing", "before recording", "after recording"}


@pytest.mark.parametrize("death", DEATHS)
@pytest.mark.parametrize("meanwhile", ["nothing", "folded", "sealed"])
def test_a_replay_that_dies_anywhere_is_finished_by_the_next_one(five: Stream, death: str, meanwhile: str) -> None:
    letter = LetterId(SOURCE.name, 0, 1)
    wanted = Wanted(ids={letter})
    with pytest.raises(Dies):
        five.replay(five.letters(wanted), **DEATHS[death](five))
    if meanwhile != "nothing":
        five.fold()
    if meanwhile == "sealed":
        five.seal()
    (fate,) = five.replay(five.letters(wanted))
    if death == "after recording":
        assert fate is Fate.DONE_BEFORE
    else:
        in_log = death in IN_STREAM and meanwhile != "nothing"
        assert fate is (Fate.IN_THE_LOG if in_log else Fate.PUBLISHED)
    assert read_record(five.blobs, letter) == ReplayRecord(event_id="poison", begun_at=NOW, finished_at=NOW)
    assert five.replay(five.letters(wanted)) == [Fate.DONE_BEFORE]
    five.fold()
    verdicts = [row.verdict for row in five.rows() if b'"poison"' in row.body]
    assert verdicts[:2] == [Verdict.DEAD, Verdict.ACCEPTED], "never lost"
    assert verdicts[2:] in ([], [Verdict.DUPLICATE]), "and never counted twice"
    assert five.views() == 3


def test_what_its_client_sent_again_meanwhile_is_not_published(five: Stream) -> None:
    five.append(body("poison"))
    five.fold()
    assert five.replay(five.letters()) == [Fate.IN_THE_LOG, Fate.PUBLISHED, Fate.NO_EVENT, Fate.NO_EVENT]
    assert five.views() == 3


def test_what_the_broker_does_not_acknowledge_stays_begun(five: Stream) -> None:
    class Silent:
        def append(self, events: Sequence[tuple[str, bytes]]) -> list[Appended | None]:
            return [None] * len(events)

    wanted = Wanted(ids={LetterId(SOURCE.name, 0, 1)})
    assert five.replay(five.letters(wanted), producer=Silent()) == [Fate.UNACKNOWLEDGED]
    (letter,) = five.letters(wanted)
    assert letter.replay == ReplayRecord(event_id="poison", begun_at=NOW)
    assert five.replay([letter]) == [Fate.PUBLISHED]


def test_an_event_that_is_still_poison_is_a_letter_of_its_own(five: Stream, world: Any) -> None:
    five.replay(five.letters(Wanted(reason="zerodivision")))
    five.fold(world.poisoned({"poison"}))
    again = five.letters(Wanted(reason="zerodivision"))
    assert ids(again) == [1, 6]
    assert [letter.replay is None for letter in again] == [False, True]


def test_a_name_is_checked() -> None:
    assert str(LetterId.parse("live-1/12/345")) == "live-1/12/345"
    for text in ("", "live-1/1", "live-1/-1/3", "../x/1/2", "live-1/1/2/3", "Live/1/2"):
        with pytest.raises(ConfigurationError):
            LetterId.parse(text)


@pytest.fixture
def run(
    servers: EmbeddedServers, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str]]:
    monkeypatch.setenv("PARTITION_COUNT", "1")
    where = ["--data", str(tmp_path), "--redis", servers.state_url, "--broker", servers.log_url]

    def call(*arguments: str) -> tuple[int, str]:
        code = main([*where, *arguments])
        said = capsys.readouterr()
        return code, said.out + said.err

    return call


def test_the_command_lists_shows_and_replays(five: Stream, run: Callable[..., tuple[int, str]]) -> None:
    code, text = run("list")
    assert code == 0
    assert [line.split()[0] for line in text.splitlines()] == [
        "id", "live-1/0/1", "live-1/0/2", "live-1/0/3", "live-1/0/4", "4",
    ]  # fmt: skip
    assert "not possible" in text
    listed = [json.loads(line) for line in run("list", "--json", "--reason", "undecodable")[1].splitlines()]
    assert [one["id"] for one in listed] == ["live-1/0/3", "live-1/0/4"]
    assert run("list", "--since", "2199-01-01") == (0, run("list", "--source", "none")[1])
    assert '"event_id": "poison"' in run("show", "live-1/0/1")[1]
    assert "hexadecimal) fffe" in run("show", "live-1/0/4")[1]

    assert run("replay", "--all", "--dry-run")[0] == 0
    assert five.log.last_sequence(0) == 5
    code, text = run("replay", "--all")
    assert (code, text.splitlines()[0]) == (0, "live-1/0/1  published")
    assert five.log.last_sequence(0) == 7
    assert "replayed before: 2" in run("replay", "--all")[1]
    assert five.log.last_sequence(0) == 7
    assert run("replay", "live-1/0/1")[0] == 0
    assert run("replay", "live-1/0/4")[0] == 1
    assert "done" in run("list")[1]


@pytest.mark.parametrize(
    "arguments",
    [
        ["replay"],
        ["show", "live-1/0/77"],
        ["show", "live-1"],
        ["replay", "live-1/0/0"],
        ["list", "--since", "soon"],
        [],
    ],
    ids=" ".join,
)
def test_what_makes_no_sense_is_refused_with_exit_code_2(
    five: Stream, run: Callable[..., tuple[int, str]], arguments: list[str]
) -> None:
    code, text = run(*arguments)
    assert code == 2
    assert "error" in text
    assert five.log.last_sequence(0) == 5


def test_servers_that_are_away_are_exit_code_1(
    five: Stream, run: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    away = f"unix://{tmp_path}/nothing.sock"
    assert run("--redis", away, "list")[0] == 1
    code, text = run("--broker", away, "replay", "live-1/0/1")
    assert (code, "run the command again" in text) == (1, True)
    assert run("replay", "live-1/0/1") == (0, "live-1/0/1  published\npublished: 1\n")
