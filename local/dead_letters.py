"""Dead letters: what the event fold could not take, why, and sending it into the stream again when that is mended.

A letter is named <source>/<partition>/<sequence>. Replaying publishes its bytes anew under the same event id; run it
again after an interruption: nothing is lost, and what was published counts once.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import Final

from shared.adapters.blob_address import open_blobs
from shared.adapters.broker import open_broker
from shared.adapters.redis_connection import connect
from shared.adapters.redis_state import RedisStateStore
from shared.cli import command
from shared.errors import ConfigurationError, InfrastructureFault
from shared.events import to_ms
from shared.ingest.dead_letter_box import DeadLetterBox, body_text, described
from shared.ingest.dead_letters import DeadLetter, Fate, LetterId, Wanted
from shared.ingest.partitioning import live_source
from shared.settings import Settings

_REDIS_TIMEOUT_MS: Final = 30_000
_REASON_WIDTH: Final = 60
_ALL_FIELDS: Final = ("id", "enqueued_at", "event_id", "event_type", "replay", "reason")


def instant(text: str) -> int:
    """Epoch ms of an ISO 8601 date or instant; one without a zone is UTC. Raises ArgumentTypeError."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no date or instant such as 2026-11-23T10:00Z") from error
    return to_ms(at if at.tzinfo else at.replace(tzinfo=UTC))


def table(letters: Sequence[DeadLetter]) -> str:
    """The letters in columns, and how many there are."""
    rows = [_ALL_FIELDS, *(tuple(str(described(one)[name] or "-") for name in _ALL_FIELDS) for one in letters)]
    cut = [tuple(_cut(word) for word in row) for row in rows]
    widths = [max(len(row[column]) for row in cut) for column in range(len(_ALL_FIELDS))]
    lines = ["  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip() for row in cut]
    return "\n".join([*lines, f"{len(letters):,} dead letters"])


def _cut(word: str) -> str:
    printable = "".join(character if character.isprintable() else "?" for character in word)
    return printable if len(printable) <= _REASON_WIDTH else f"{printable[: _REASON_WIDTH - 1]}…"


def show(letter: DeadLetter) -> str:
    """Everything about one letter, its bytes last."""
    text, hexadecimal = body_text(letter)
    if hexadecimal:
        text = f"(no UTF-8; hexadecimal) {text}"
    return "\n".join([*(f"{name:19}{value}" for name, value in described(letter).items()), f"{'body':19}{text}"])


def replay_all(
    box: DeadLetterBox, letters: Sequence[DeadLetter], settings: Settings, clock: Callable[[], int]
) -> Counter[Fate]:
    """Publish them and say what became of each; the answer counts the fates."""
    fates: Counter[Fate] = Counter()
    broker = open_broker(settings)
    with closing(broker):
        for letter, fate in box.replay(letters, broker.producer, clock):
            fates[fate] += 1
            print(f"{letter.id}  {fate}", flush=True)
    print("; ".join(f"{fate}: {count:,}" for fate, count in fates.items()) or "nothing to replay")
    return fates


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m local.dead_letters", description=__doc__)
    parser.add_argument("--data", default="", metavar="DIR", help="the shop's folder (default: the setting BLOB_URL)")
    parser.add_argument("--redis", default="", metavar="URL", help="feature state (default: the setting REDIS_URL)")
    parser.add_argument("--broker", default="", metavar="URL", help="broker log (default: the setting EVENT_LOG_URL)")
    filters = argparse.ArgumentParser(add_help=False)
    filters.add_argument("--source", help="only this event source")
    filters.add_argument("--partition", type=int, help="only this partition")
    filters.add_argument("--reason", metavar="TEXT", help="only where the reason holds this")
    filters.add_argument("--since", type=instant, metavar="WHEN", help="only from this UTC date or instant on")
    actions = parser.add_subparsers(dest="action", required=True)
    listed = actions.add_parser("list", parents=[filters], help="every dead letter")
    listed.add_argument("--json", action="store_true", help="one JSON object a line")
    shown = actions.add_parser("show", help="one dead letter, with its bytes")
    shown.add_argument("id", type=LetterId.parse)
    replayed = actions.add_parser(
        "replay", parents=[filters], help="publish dead letters anew; exit 1 if one cannot be"
    )
    replayed.add_argument("ids", nargs="*", type=LetterId.parse, metavar="ID")
    replayed.add_argument("--all", action="store_true", help="all of them, where no id and no filter is given")
    replayed.add_argument("--dry-run", action="store_true", help="say which, and publish nothing")
    return parser.parse_args(argv)


def _wanted(arguments: argparse.Namespace) -> Wanted:
    if arguments.action == "show":
        return Wanted(ids={arguments.id})
    ids = frozenset(getattr(arguments, "ids", ()))
    wanted = Wanted(ids, arguments.source, arguments.partition, arguments.reason, arguments.since)
    if arguments.action == "replay" and not arguments.all and wanted == Wanted(frozenset()):
        raise ConfigurationError("say which to replay: ids, a filter, or --all")
    return wanted


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    arguments = _arguments(argv)
    wanted = _wanted(arguments)
    changed = {"BLOB_URL": arguments.data, "REDIS_URL": arguments.redis, "EVENT_LOG_URL": arguments.broker}
    given = {name: value for name, value in changed.items() if value}
    settings = Settings.from_environment({**os.environ, **given})
    try:
        return _run(arguments, wanted, settings)
    except InfrastructureFault as error:
        sys.stderr.write(f"error: {error}; run the command again when it is back\n")
        return 1


def _run(arguments: argparse.Namespace, wanted: Wanted, settings: Settings) -> int:
    blobs = open_blobs(settings.blob_url, settings.blob_connection)
    with connect(settings.redis_url, timeout_ms=_REDIS_TIMEOUT_MS) as client:
        store = RedisStateStore(client, settings.user_key_secret)
        box = DeadLetterBox(blobs, store, live_source(settings))
        letters = box.letters(wanted)
        if arguments.action == "show":
            print(show(letters[0]))
        elif arguments.action == "list" and arguments.json:
            for letter in letters:
                print(json.dumps(described(letter)))
        elif arguments.action == "list" or arguments.dry_run:
            print(table(letters))
        else:
            fates = replay_all(box, letters, settings, lambda: time.time_ns() // 1_000_000)
            # Who names a letter that cannot be replayed asked for too much; who says "all" did not.
            refused = wanted.ids and not {Fate.NO_EVENT, Fate.ERASURE}.isdisjoint(fates)
            return 1 if Fate.UNACKNOWLEDGED in fates or refused else 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
