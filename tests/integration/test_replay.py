"""A lake replayed into the embedded log: all of it, in order, once, whatever happens on the way."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from redis import Redis

from local.embedded import EmbeddedServers
from local.replay import main
from local.replay_source import Place
from shared.adapters.folder_blob import FolderBlobStore
from shared.adapters.keys import PartitionKeys
from shared.adapters.redis_connection import connect
from shared.adapters.redis_log import RedisEventLog
from shared.adapters.redis_state import RedisStateStore
from shared.events import Event, EventType, ItemId, UserId, decode_event, from_ms, partition_of
from shared.ingest.lake import LAKE_SCHEMA, ShopSettings, publish_history, read_manifest, write_manifest, write_sealed
from shared.ingest.lake_files import day_text, write_file
from shared.ingest.lake_table import table_of_landing, unnumbered_table
from shared.ports import Verdict
from tests.integration.api_shop import open_shop
from tests.unit.lake_builders import DAY, START, row, skipped

ROOT = Path(__file__).parents[2]
COUNT, USERS, SPAN_DAYS = 1200, 40, 3


def recorded_events() -> list[Event]:
    return [
        Event(
            event_id=f"h{number}",
            event_type=EventType.VIEW,
            occurred_at=from_ms(START + number * SPAN_DAYS * DAY // COUNT),
            user_id=UserId(f"user-{number * 7 % USERS}"),
            item_id=ItemId(f"sku-{number % 9:04d}"),
        )
        for number in range(COUNT)
    ]


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)  # the progress file's default place is below the working folder
    blobs = FolderBlobStore(tmp_path / "shop")
    publish_history(blobs, "history-a", 4, ShopSettings(), [unnumbered_table(recorded_events())])
    live = [row(number, START + 2 * DAY + number) for number in range(6)]
    live[2] = row(2, START + 2 * DAY + 2, verdict=Verdict.DUPLICATE)
    live[3] = row(3, START + 2 * DAY + 3, verdict=Verdict.DEAD, reason="no JSON", body=b"{")
    live[4] = skipped(4, 4, START + 2 * DAY + 4)
    write_sealed(blobs, live)
    return tmp_path / "shop"


@pytest.fixture
def log(servers: EmbeddedServers, log_client: Redis) -> RedisEventLog:
    return RedisEventLog(log_client, "load", 4)


@pytest.fixture
def verdicts(servers: EmbeddedServers, log: RedisEventLog, tmp_path: Path) -> Iterator[Callable[[], Counter[Verdict]]]:
    """Folds what the log holds, and tells what became of it."""
    with (
        open_shop(servers.state_url, servers.log_url, tmp_path / "other", stocked=False, EVENT_SOURCE="load") as shop,
        connect(servers.state_url, timeout_ms=5000) as client,
    ):

        def fold() -> Counter[Verdict]:
            shop.pump()
            store = RedisStateStore(client, shop.settings.user_key_secret)
            return Counter(one.verdict for n in range(4) for one in store.oldest_landing_rows("load", n, 10_000))

        yield fold


def arguments(lake: Path, url: str, *more: str) -> list[str]:
    return ["--lake", str(lake), "--to", url, "--into", "load", *more]


def logged(log: RedisEventLog) -> dict[int, list[Event]]:
    return {number: [decode_event(one.body) for one in log.read(number, -1, 100_000)] for number in range(4)}


def ids_of(log: RedisEventLog) -> list[str]:
    return [event.event_id for events in logged(log).values() for event in events]


def by_partition(events: list[Event]) -> dict[int, list[Event]]:
    return {number: [one for one in events if partition_of(one.partition_key, 4) == number] for number in range(4)}


def test_everything_accepted_goes_out_in_order_as_it_was(
    lake: Path, servers: EmbeddedServers, log: RedisEventLog, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(lake, servers.log_url, "--speed", "max", "--source", "history-a")) == 0
    assert logged(log) == by_partition(recorded_events())
    assert "done: 1,200 events" in capsys.readouterr().out
    assert main(arguments(lake, servers.log_url, "--speed", "max", "--source", "live-1")) == 0
    assert sorted(ids_of(log))[:3] == ["e0", "e1", "e5"], "no duplicate, nothing dead, nothing skipped"
    assert not list(lake.parent.glob(".recommndr/*")), "a finished replay leaves no progress file"


def test_what_was_redacted_or_cannot_be_read_is_left_out(
    lake: Path, servers: EmbeddedServers, log: RedisEventLog
) -> None:
    blobs = FolderBlobStore(lake)
    rows = [row(number, START + 9 * DAY + number) for number in range(10, 14)]
    table = table_of_landing([*rows, row(14, START + 9 * DAY + 14, body=b"{")])
    users = table["user_id"].to_pylist()
    users[1] = None
    table = table.set_column(table.schema.get_field_index("user_id"), LAKE_SCHEMA.field("user_id"), [users])
    entry = write_file(blobs, "lake/live-1/redacted.parquet", "live-1", day_text(rows[0].enqueued_at), table)
    manifest = read_manifest(blobs)
    assert manifest is not None
    write_manifest(
        blobs, msgspec.structs.replace(manifest, version=manifest.version + 1, files=(*manifest.files, entry))
    )
    first = ("--from", day_text(rows[0].enqueued_at))
    assert main(arguments(lake, servers.log_url, "--speed", "max", *first)) == 0
    assert sorted(ids_of(log)) == ["e10", "e12", "e13"]


def test_days_may_be_chosen_and_moved_to_now(
    lake: Path, servers: EmbeddedServers, log: RedisEventLog, capsys: pytest.CaptureFixture[str]
) -> None:
    day = from_ms(START + 2 * DAY).date().isoformat()
    before = time.time_ns() // 1_000_000
    chosen = arguments(lake / "lake", servers.log_url, "--from", day, "--speed", "max", "--shift-to-now")
    assert main([*chosen, "--dry-run"]) == 0
    assert "403 events" in capsys.readouterr().out
    assert ids_of(log) == []
    assert main(chosen) == 0
    events = sorted((one for group in logged(log).values() for one in group), key=lambda one: one.occurred_at_ms)
    assert len(events) == 403
    assert before <= events[-1].occurred_at_ms <= time.time_ns() // 1_000_000
    gaps = Counter(one.occurred_at_ms - other.occurred_at_ms for other, one in pairwise(events[-9:]))
    assert gaps == {SPAN_DAYS * DAY // COUNT: 8}


def test_at_a_speed_the_recorded_distances_are_kept(lake: Path, servers: EmbeddedServers, log: RedisEventLog) -> None:
    """Three days in a second: the broker's instants lie as the recorded ones did."""
    assert main(arguments(lake, servers.log_url, "--source", "history-a", "--speed", str(SPAN_DAYS * 86_400))) == 0
    records = log.read(0, -1, 10_000)
    took = records[-1].enqueued_at - records[0].enqueued_at
    assert took >= 900
    middle = records[len(records) // 2].enqueued_at - records[0].enqueued_at
    assert middle >= 400, "not all at once after a pause"


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_replay_that_is_stopped_goes_on_and_everything_counts_once(
    lake: Path,
    servers: EmbeddedServers,
    log: RedisEventLog,
    verdicts: Callable[[], Counter[Verdict]],
    how: signal.Signals,
) -> None:
    progress = lake / "progress.json"
    told = arguments(lake, servers.log_url, "--source", "history-a", "--progress", str(progress))
    command = [sys.executable, "-m", "local.replay", *told, "--speed", str(SPAN_DAYS * 86_400 / 40)]
    # A suite that runs in a shell's background was told to ignore Ctrl-C, and so would its children be.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    child = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    signal.signal(signal.SIGINT, before)
    assert child.stderr is not None
    while not progress.exists() or msgspec.json.decode(progress.read_bytes(), type=Place).total < 70:
        assert child.poll() is None, child.stderr.read()
        time.sleep(0.02)
    child.send_signal(how)
    complaint = child.communicate(timeout=30)[1]
    if how == signal.SIGINT:
        assert child.returncode == 130
        assert "--resume goes on there" in complaint
    assert 70 <= len(ids_of(log)) < COUNT
    if how == signal.SIGKILL:  # as if it had died between an acknowledgement and the file
        place = msgspec.json.decode(progress.read_bytes(), type=Place)
        progress.write_bytes(msgspec.json.encode(Place(place.day, place.offset - 60, place.total - 60)))

    assert main([*told, "--speed", "max"]) == 2, "beginning anew has to be said"
    assert main([*told, "--speed", "max", "--resume"]) == 0
    counted = Counter(ids_of(log))
    assert set(counted) == {event.event_id for event in recorded_events()}
    assert (60 if how == signal.SIGKILL else 0) <= sum(counted.values()) - COUNT <= 500
    assert verdicts() == Counter({Verdict.ACCEPTED: COUNT, Verdict.DUPLICATE: sum(counted.values()) - COUNT})


def test_while_a_partition_is_broken_the_replay_waits_and_loses_nothing(
    lake: Path, servers: EmbeddedServers, log: RedisEventLog, log_client: Redis
) -> None:
    key = PartitionKeys("load", 2).broker_log
    log_client.set(key, "no stream")
    mend = threading.Timer(1.0, log_client.delete, [key])
    mend.start()
    assert main(arguments(lake, servers.log_url, "--source", "history-a", "--speed", "max")) == 0
    mend.join()
    assert logged(log) == by_partition(recorded_events()), "each once: what was acknowledged is not sent again"


def test_a_broker_that_dies_and_comes_back_gets_the_rest(lake: Path, tmp_path: Path) -> None:
    with EmbeddedServers(tmp_path / "servers") as own:
        url = own.log_url
        told = arguments(lake, url, "--source", "history-a", "--speed", str(SPAN_DAYS * 86_400 / 3))
        result: list[int] = []
        replaying = threading.Thread(target=lambda: result.append(main(told)))
        replaying.start()
        with Redis.from_url(url) as client:
            wait_until(lambda: len(ids_of(RedisEventLog(client, "load", 4))) > 100)
            own.log.kill()
            time.sleep(0.5)
            own.log.start()
            replaying.join(60)
            assert result == [0]
            counted = Counter(ids_of(RedisEventLog(client, "load", 4)))
    assert set(counted) == {event.event_id for event in recorded_events()}


def test_a_broker_that_never_comes_ends_it_with_where_to_go_on(
    lake: Path, servers: EmbeddedServers, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("local.replay_delivery.GIVE_UP_AFTER_S", 0.2)
    assert main(arguments(lake, "redis://127.0.0.1:1/0", "--speed", "max")) == 1
    assert "before the first event; run it again" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--source", "nobody"], "it has history-a, live-1"),
        (["--from", "2031-01-01"], "no events on these days"),
        (["--from", "yesterday"], "invalid"),
        (["--speed", "0"], "above 0, or max"),
        (["--speed", "fast"], "above 0, or max"),
        (["--partitions", "0"], "PARTITION_COUNT"),
        (["--into", "Not A Name"], "EVENT_SOURCE"),
        (["--resume"], "no unfinished replay"),
        (["--resume", "--anew"], "not allowed with"),
        (["--to", "http://localhost/"], "EVENT_LOG_URL"),
    ],
)
def test_wrong_use_is_told(lake: Path, servers: EmbeddedServers, capsys: pytest.CaptureFixture[str],
                           more: list[str], says: str) -> None:  # fmt: skip
    assert main([*arguments(lake, servers.log_url), *more]) == 2
    assert says in capsys.readouterr().err


def test_a_folder_without_a_lake_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(tmp_path, "redis://localhost:1/0")) == 2
    assert "there is no lake here" in capsys.readouterr().err


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)
