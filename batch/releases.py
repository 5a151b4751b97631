"""Look at releases and move traffic between them: list, show, activate, rollback."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from batch.publish_release import describe, promote_in_mlflow
from shared.adapters.activation import activate, active_release, check_usable, earlier_releases, roll_back
from shared.adapters.folder_blob import FolderBlobStore
from shared.adapters.redis_connection import connect
from shared.adapters.redis_releases import RedisReleaseStore
from shared.cli import command
from shared.errors import ReleaseUnavailable
from shared.events import from_ms
from shared.releases.manifest import read_manifest, release_ids
from shared.settings import Settings

DEFAULT_DATA: Final = Path(".recommndr/data")
_REDIS_TIMEOUT_MS: Final = 5000


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run one of the four; 2 when a release may not serve."""
    arguments = _parser().parse_args(argv)
    settings = Settings.from_environment(os.environ)
    blobs = FolderBlobStore(arguments.data)
    with connect(arguments.redis or settings.redis_url, timeout_ms=_REDIS_TIMEOUT_MS) as client:
        store = RedisReleaseStore(client)
        run: Callable[[RedisReleaseStore, FolderBlobStore, argparse.Namespace], str] = arguments.run
        print(run(store, blobs, arguments))
    return 0


def _list(store: RedisReleaseStore, blobs: FolderBlobStore, _arguments: argparse.Namespace) -> str:
    active, earlier, lists = active_release(store), earlier_releases(store), store.with_lists()
    lines = [f"{'release':20}{'events until (UTC)':20}{'items':>9}{'users':>11}  {'lists':10}state"]
    for release_id in release_ids(blobs):
        manifest = read_manifest(blobs, release_id)
        held = "none" if release_id not in lists else "expiring" if lists[release_id] else "kept"
        state = "active" if release_id == active else "rollback" if earlier[:1] == [release_id] else ""
        lines.append(
            f"{release_id:20}{from_ms(manifest.as_of):%Y-%m-%d %H:%M}    {manifest.items_count:>9,}"
            f"{manifest.users_count:>11,}  {held:10}{state}"
        )
    return "\n".join(lines) if len(lines) > 1 else "no release yet: run python -m batch.run_nightly --data DIR"


def _show(store: RedisReleaseStore, blobs: FolderBlobStore, arguments: argparse.Namespace) -> str:
    manifest = read_manifest(blobs, arguments.release_id)
    try:
        check_usable(store, blobs, arguments.release_id)
        usable = "yes"
    except ReleaseUnavailable as error:
        usable = f"no: {error}"
    document = msgspec.json.format(msgspec.json.encode(manifest), indent=2).decode()
    return f"{document}\nusable: {usable}\nactive: {'yes' if active_release(store) == arguments.release_id else 'no'}"


def _activate(store: RedisReleaseStore, blobs: FolderBlobStore, arguments: argparse.Namespace) -> str:
    return describe(activate(store, blobs, arguments.release_id, promote_in_mlflow(arguments.data, blobs)))


def _roll_back(store: RedisReleaseStore, blobs: FolderBlobStore, arguments: argparse.Namespace) -> str:
    return describe(roll_back(store, blobs, promote_in_mlflow(arguments.data, blobs)))


def _parser() -> argparse.ArgumentParser:
    every = argparse.ArgumentParser(add_help=False)
    every.add_argument(
        "--data", type=Path, default=DEFAULT_DATA, metavar="DIR", help="folder of the shop (default %(default)s)"
    )
    every.add_argument("--redis", default="", metavar="URL", help="release store (default: the setting REDIS_URL)")
    parser = argparse.ArgumentParser(prog="python -m batch.releases", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, run, text, named in (
        ("list", _list, "every finished release and whether it may serve", False),
        ("show", _show, "one release's manifest, and whether its files and lists are whole", True),
        ("activate", _activate, "give one release all traffic", True),
        ("rollback", _roll_back, "give all traffic back to the release that had it before", False),
    ):
        one = commands.add_parser(name, help=text, description=text, parents=[every])
        one.set_defaults(run=run)
        if named:
            one.add_argument("release_id", metavar="ID")
    return parser


if __name__ == "__main__":
    sys.exit(main())
