"""Make the feature catalogue of a shop: a Feast registry below its folder, generated from the declarations."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from shared.cli import command


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Command line: without an option the catalogue is written and listed."""
    parser = argparse.ArgumentParser(prog="python -m feature_jobs.feast_catalog", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(".recommndr/data"), metavar="DIR", help="default %(default)s")
    doing = parser.add_mutually_exclusive_group()
    doing.add_argument("--apply", action="store_true", help="write the registry (the default)")
    doing.add_argument("--list", action="store_true", help="print every feature of the declarations, write nothing")
    doing.add_argument("--ui", action="store_true", help="write the registry, then serve Feast's pages until Ctrl-C")
    parser.add_argument("--host", default="127.0.0.1", help="address of the pages (default: this machine alone)")
    parser.add_argument("--port", type=int, default=8888, help="port of the pages (default %(default)s)")
    arguments = parser.parse_args(argv)
    print("loading Feast (a few seconds)", file=sys.stderr, flush=True)
    from feature_jobs.feast_catalog import repository  # noqa: PLC0415 - Feast takes seconds that --help need not wait for

    if arguments.list:
        print(repository.listing())
        return 0
    store = repository.apply(arguments.data)
    print(f"{repository.folder_of(arguments.data)}: {repository.summary()}")
    if arguments.ui:
        print(f"the feature catalogue is at http://{arguments.host}:{arguments.port} until Ctrl-C", flush=True)
        repository.serve_pages(store, arguments.host, arguments.port)
    return 0


if __name__ == "__main__":
    sys.exit(main())
