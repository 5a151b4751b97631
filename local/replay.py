"""Push a lake's recorded days to a broker log: in real time, so many times faster, or as fast as it takes them.

Accepted events go out in log order through the producers that POST /events uses, with their own event ids. Within a
stream whose readers have not seen them they count once, also when a replay that stopped goes on: the progress file is
written after every acknowledged batch, and the few events that go out twice are known by their ids (24 hours, 256
events of a user). Beginning anew into the same stream is another matter, so that has to be said: --anew. A shop that
folded this very lake as its history counts a replay as further events: give the stream a shop, or an EVENT_SOURCE, of
its own.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import date, timedelta
from hashlib import blake2b
from pathlib import Path
from typing import Final

from local.replay_delivery import Delivery, Pace, ProgressFile, Recorded, moved
from local.replay_screen import replay_screen
from local.replay_source import DaySummary, Place, RecordedDays
from shared.adapters.blob_address import open_blobs
from shared.adapters.broker import open_broker
from shared.cli import command
from shared.errors import BrokerUnavailable, ConfigurationError
from shared.events import Event, from_ms
from shared.settings import Settings

TIMEOUT_MS: Final = 10_000
"""A replay may wait longer than a request, unless EVENT_LOG_TIMEOUT_MS is set."""

type Dating = Callable[[Recorded], Event]
"""Gives an event the occurred_at it goes out with."""


def target_settings(environ: Mapping[str, str], arguments: argparse.Namespace) -> Settings:
    """The settings of the stream that is written to. Raises ConfigurationError."""
    changed = {
        "EVENT_LOG_URL": arguments.to,
        "EVENT_LOG_TIMEOUT_MS": environ.get("EVENT_LOG_TIMEOUT_MS") or str(TIMEOUT_MS),
        "EVENT_SOURCE": arguments.into or environ.get("EVENT_SOURCE", ""),
        "PARTITION_COUNT": arguments.partitions or environ.get("PARTITION_COUNT", ""),
    }
    return Settings.from_environment({**environ, **changed})


def describe(summaries: Sequence[DaySummary], speed: float | None) -> str:
    """The days as a table, and how long a replay takes."""
    lines = [f"  {one.day}  {one.events:>12,} events" for one in summaries]
    events, span_ms = sum(one.events for one in summaries), summaries[-1].last_at - summaries[0].first_at
    how_long = (
        "as fast as the broker log takes them"
        if speed is None
        else f"{timedelta(milliseconds=round(span_ms / speed, -3))} at {speed:g} times the recorded speed"
    )
    span = (
        f"{from_ms(summaries[0].first_at):%Y-%m-%d %H:%M:%S} to {from_ms(summaries[-1].last_at):%Y-%m-%d %H:%M:%S} UTC"
    )
    return "\n".join([*lines, f"{events:,} events, {span}; {how_long}"])


def as_recorded(recorded: Recorded) -> Event:
    """How --keep-times dates events: not at all."""
    return recorded[1].event


def shifted_to_now(pace: Pace, speed: float | None, last_at: int, now_ms: int) -> Dating:
    """How --shift-to-now dates events; how late each was, and the order, stay as recorded.

    At a speed an event occurs when it goes out. As fast as possible there is no such instant: all are moved by one
    span, which puts the last one at now, so that nothing lies in the future.
    """

    def date_event(recorded: Recorded) -> Event:
        at, event = recorded[1].enqueued_at, recorded[1].event
        shift = now_ms - last_at if speed is None else now_ms + round(pace.due_after_ms(at)) - at
        return moved(event, event.occurred_at_ms + shift)

    return date_event


def replay(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Push what the arguments say; 0 when all is acknowledged, 1 when the broker log gave no answer for minutes."""
    settings = target_settings(environ, arguments)
    recorded = RecordedDays(
        open_blobs(_shop(arguments.lake), settings.blob_connection),
        source=arguments.source,
        first=arguments.first,
        last=arguments.last,
    )
    summaries = list(recorded.summaries())
    if not summaries:
        raise ConfigurationError("these days hold no accepted event")
    print(describe(summaries, arguments.speed), flush=True)
    if arguments.dry_run:
        return 0
    progress = ProgressFile(arguments.progress or _progress_path(arguments, settings))
    after = _begin(progress, arguments)
    pace = Pace(arguments.speed, time.monotonic, time.sleep)
    dating: Dating = as_recorded
    if arguments.shift_to_now:
        dating = shifted_to_now(pace, arguments.speed, summaries[-1].last_at, time.time_ns() // 1_000_000)
    total = sum(one.events for one in summaries)
    with closing(open_broker(settings)) as broker:
        return _push(
            recorded, after, total, pace, dating, Delivery(broker.producer, time.monotonic, time.sleep), progress
        )


def _push(  # noqa: PLR0917 - the parts of one replay, each with its own type
    recorded: RecordedDays,
    after: Place | None,
    total: int,
    pace: Pace,
    dating: Dating,
    delivery: Delivery,
    progress: ProgressFile,
) -> int:
    place = after
    try:
        with replay_screen(total, after.total if after else 0, time.monotonic) as show:
            for batch in pace.batches(recorded.events(after)):
                delivery.deliver([dating(one) for one in batch])
                place = batch[-1][0]
                progress.write(place)
                show(place, pace.behind_s)
    except (KeyboardInterrupt, BrokerUnavailable) as stop:
        where = (
            "before the first event" if place is None else f"after {place.total:,} of {total:,} events ({place.day})"
        )
        why = "stopped" if isinstance(stop, KeyboardInterrupt) else f"error: {stop}; stopped"
        again = "run it again" if place is None else "the same command with --resume goes on there"
        sys.stderr.write(f"{why} {where}; {again}\n")
        return 130 if isinstance(stop, KeyboardInterrupt) else 1
    progress.clear()
    sent = (place.total if place else 0) - (after.total if after else 0)
    print(f"done: {sent:,} events acknowledged, {delivery.repeated:,} sent again before that")
    return 0


def _begin(progress: ProgressFile, arguments: argparse.Namespace) -> Place | None:
    held = progress.read()
    if arguments.resume:
        if held is None:
            raise ConfigurationError(
                f"there is no unfinished replay in {progress.path}; leave out --resume to begin one"
            )
        return held
    if held is not None and not arguments.anew:
        raise ConfigurationError(
            f"an unfinished replay stands at event {held.total:,} ({held.day}, {progress.path}): --resume goes on "
            "there, --anew begins again and may count events twice"
        )
    progress.clear()
    return None


def _shop(lake: str) -> str:
    """The shop's folder, of which `lake` may be the part that is the lake; a blob container stays as it is."""
    if "://" in lake:
        return lake
    folder = Path(lake).resolve()
    return str(folder.parent if folder.name == "lake" and (folder / "lake_manifest.json").exists() else folder)


def _progress_path(arguments: argparse.Namespace, settings: Settings) -> Path:
    """A file of its own for each lake, target and choice of days; without a password, which may change."""
    target = arguments.to.rpartition("@")[2]
    parts = (
        _shop(arguments.lake), target, settings.event_source, arguments.source, arguments.first, arguments.last,
    )  # fmt: skip

    digest = blake2b("\n".join(map(str, parts)).encode(), digest_size=6).hexdigest()
    return Path(".recommndr") / f"replay-{digest}.json"


def _speed(text: str) -> float | None:
    if text == "max":
        return None
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not 0 < speed < 1e9:
        raise argparse.ArgumentTypeError("must be a number above 0, or max")
    return speed


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m local.replay", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    option = parser.add_argument
    option("--lake", required=True, metavar="DIR", help="the shop whose lake is replayed, as BLOB_URL names it")
    option(
        "--to", required=True, metavar="BROKER",
        help="kafka://host:port/topic, eventhubs://namespace/hub, or unix:// or redis:// as local.serve prints it; "
        "EVENT_LOG_SASL, _USER and _PASSWORD count as for the server",
    )  # fmt: skip
    option("--source", metavar="NAME", help="only this event source of the lake (all)")
    option(
        "--from", dest="first", type=date.fromisoformat, metavar="DAY", help="first UTC day, YYYY-MM-DD (the oldest)"
    )
    option("--to-day", dest="last", type=date.fromisoformat, metavar="DAY", help="last UTC day, included (the newest)")
    option("--speed", type=_speed, default=1.0, metavar="N|max", help="times the recorded speed (1), or max")
    times = parser.add_mutually_exclusive_group()
    times.add_argument(
        "--shift-to-now", action="store_true",
        help="events occur when they go out; with --speed max the last one occurs now and all keep their distances",
    )  # fmt: skip
    times.add_argument(
        "--keep-times", dest="shift_to_now", action="store_false", help="events occur when they did (default)"
    )
    option(
        "--into",
        metavar="NAME",
        help="event source that is written to (EVENT_SOURCE); names the embedded log's streams",
    )
    option("--partitions", metavar="N", help="partitions of the stream written to (PARTITION_COUNT)")
    option("--progress", type=Path, metavar="FILE", help="where to remember how far it came (a file below .recommndr)")
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on where an unfinished replay stopped")
    again.add_argument("--anew", action="store_true", help="begin again although one is unfinished")
    option("--dry-run", action="store_true", help="tell what would be sent and how long it takes, and send nothing")
    return parser.parse_args(argv)


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    return replay(_arguments(argv), os.environ)


if __name__ == "__main__":
    sys.exit(main())
