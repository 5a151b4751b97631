"""Write docs/features.md: every feature as its declaration says it, in the order of the ranker's columns."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from shared.events import EventType
from shared.features.aggregations import DAY_MS, HOUR_MS, Aggregation, Count, Decayed, Earliest
from shared.features.declaration import Feature
from shared.features.definitions import FEATURES, ITEM_LAYOUT, STATE_VERSION, USER_LAYOUT
from shared.features.vector import schema_of

PAGE: Final = Path(__file__).parent.parent / "docs" / "features.md"
COMMAND: Final = "python -m feature_jobs.describe_features"


def page_of(features: tuple[Feature, ...] = FEATURES) -> str:
    """The whole page as Markdown, ending in a newline."""
    schema = schema_of(features)
    lines = [
        "# Features",
        "",
        f"Made by `{COMMAND}` from `shared/features/definitions.py`, the only place a feature is declared;",
        "a test compares. Change the declaration, then run the command.",
        "",
        f"Schema `{schema.digest}` ({len(features)} columns), state version `{STATE_VERSION}`:",
        f"a user's state has {_sizes(USER_LAYOUT.decayed, USER_LAYOUT.counts, USER_LAYOUT.lists)},",
        f"an item's {_sizes(ITEM_LAYOUT.decayed, ITEM_LAYOUT.counts, ITEM_LAYOUT.lists)}.",
        "",
        "| column | feature | entity | description | reads | default | dtype |",
        "| ---: | --- | --- | --- | --- | ---: | --- |",
    ]
    lines += [
        f"| {column} | `{one.name}` | {one.entity} | {_cell(one.description)} "
        f"| {_cell(_reads(one))} | {one.default:g} | {one.dtype} |"
        for column, one in enumerate(features)
    ]
    return "\n".join(lines) + "\n"


def describe(aggregation: Aggregation) -> str:
    """One aggregation in words."""
    kinds = _kinds(aggregation.events)
    if isinstance(aggregation, Decayed):
        return f"{aggregation.amount.value.replace('_', ' ')} of {kinds}, half-life {_span(aggregation.half_life_ms)}"
    if isinstance(aggregation, Count):
        return f"count of {kinds}"
    if isinstance(aggregation, Earliest):
        return f"earliest of {kinds}"
    return f"last {aggregation.k} of {kinds}"


def main(argv: Sequence[str] | None = None) -> int:
    """Write the page, or with --check compare and return 1 where it differs."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when the page is not up to date")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page (default: docs/features.md)")
    arguments = parser.parse_args(argv)
    wanted = page_of()
    if not arguments.check:
        arguments.page.write_text(wanted, encoding="utf-8")
        print(f"{arguments.page.name}: {len(FEATURES)} features")
        return 0
    found = arguments.page.read_text(encoding="utf-8") if arguments.page.exists() else ""
    if found != wanted:
        print(f"{arguments.page.name} does not say what the declarations say; run {COMMAND}", file=sys.stderr)
        return 1
    return 0


def _reads(feature: Feature) -> str:
    if feature.vocabulary:
        return f"at read, of: {', '.join(feature.vocabulary)}"
    return "; ".join(map(describe, feature.aggregations)) or "at read"


def _kinds(kinds: tuple[EventType, ...]) -> str:
    return ", ".join(kinds)


def _span(length_ms: int) -> str:
    return f"{length_ms // DAY_MS} d" if length_ms % DAY_MS == 0 else f"{length_ms / HOUR_MS:g} h"


def _sizes(decayed: Sequence[object], counts: Sequence[object], lists: Sequence[object]) -> str:
    return f"{len(decayed)} decayed sums, {len(counts)} counts and {len(lists)} lists"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(main())
