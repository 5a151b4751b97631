"""The state versions in Redis: which there are, who needs them, which are broken; and clearing one to load it anew."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from shared.adapters.blob_address import open_blobs
from shared.adapters.redis_connection import connect
from shared.adapters.redis_releases import RedisReleaseStore
from shared.adapters.redis_versions import PartitionMarks, StateVersions
from shared.cli import command
from shared.errors import ConfigurationError
from shared.events import EventSource
from shared.ingest.marks import BACKFILL
from shared.ingest.partitioning import live_source
from shared.ingest.state_versions import CURRENT_VERSION, NeededVersions, needed_versions
from shared.releases.manifest import read_manifest
from shared.settings import Settings

_REDIS_TIMEOUT_MS: Final = 30_000


@dataclass(frozen=True, slots=True)
class Line:
    """What is to be said of one state version; `behind` counts events it has yet to fold, None where it waits."""

    version: str
    keys: int
    releases: tuple[str, ...]
    behind: int | None
    broken: str | None

    @property
    def state(self) -> str:
        """One word or few."""
        if self.broken is not None:
            return f"broken: {self.broken}"
        if not self.releases and self.version != CURRENT_VERSION.name:
            return "unused: clear it"
        if self.behind is None:
            return "waits for its backfill"
        return "folded" if self.behind == 0 else f"{self.behind:,} events behind"


def lines(states: StateVersions, needed: NeededVersions, source: EventSource) -> list[Line]:
    """Every state version that Redis holds or a release needs. Raises StateUnavailable."""
    stored, broken = states.stored(), states.broken()
    names = list(dict.fromkeys([*(version.name for version in needed.fold), *stored, *broken]))
    marks = states.marks(source, names)
    return [
        Line(
            version=name,
            keys=stored.get(name, 0),
            releases=tuple(release for release, version in needed.releases.items() if version == name),
            behind=_behind(name, marks),
            broken=broken.get(name),
        )
        for name in names
    ]


def _behind(version: str, marks: Sequence[PartitionMarks]) -> int | None:
    total = 0
    for held in marks:
        if held.log is not None:
            mark = held.versions.get(version)
            if mark is None:
                return None
            total += held.log.sequence - mark.sequence
    return total


def clear(states: StateVersions, needed: NeededVersions, version: str, *, force: bool) -> int:
    """Remove a version's keys and the word that it is broken; returns how many keys went.

    Raises ConfigurationError for a sound version that a release with traffic reads, unless `force`.
    """
    if version in needed.allocated and version not in states.broken() and not force:
        raise ConfigurationError(
            f"state version {version} is what releases with traffic read, and it is not broken: with --force all "
            "shoppers are strangers until it is loaded anew"
        )
    return states.clear(version)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m local.state_versions", description=__doc__)
    parser.add_argument("--redis", default="", metavar="URL", help="feature state (default: the setting REDIS_URL)")
    parser.add_argument("--data", default="", metavar="DIR", help="folder of the shop (default: the setting BLOB_URL)")
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("list", help="every version that Redis holds or a release needs")
    cleared = actions.add_parser("clear", help="remove a version's state, so that a backfill can load it anew")
    cleared.add_argument("version")
    cleared.add_argument("--force", action="store_true", help="also a sound version that releases with traffic read")
    return parser.parse_args(argv)


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    arguments = _arguments(argv)
    settings = Settings.from_environment(os.environ)
    blobs = open_blobs(arguments.data or settings.blob_url, settings.blob_connection)
    source = live_source(settings)
    with connect(arguments.redis or settings.redis_url, timeout_ms=_REDIS_TIMEOUT_MS) as client:
        states = StateVersions(client)
        needed = needed_versions(RedisReleaseStore(client), lambda release_id: read_manifest(blobs, release_id))
        if arguments.action == "clear":
            removed = clear(states, needed, arguments.version, force=arguments.force)
            print(f"state version {arguments.version}: {removed:,} keys removed; load it: {BACKFILL}")
            return 0
        print(f"{'version':10}{'keys':>10}  {'releases':40}  state")
        for line in lines(states, needed, source):
            print(f"{line.version:10}{line.keys:>10,}  {', '.join(line.releases) or '-':40}  {line.state}")
        for release_id, reason in needed.beyond.items():
            print(f"{release_id}: {reason}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
