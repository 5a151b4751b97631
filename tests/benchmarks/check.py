"""What a page and an event cost, as ratios to something bare, against the committed ones: `make bench-check`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from shared.cli import command
from tests.benchmarks import throughput
from tests.benchmarks.serving import REQUESTS, run

EXPECTED: Final = Path(__file__).with_name("expected.json")
_BARE: Final = {"p50": "a bare echo", "p99": "a bare echo", "event": "decoding and encoding its JSON"}


def regressions(measured: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """What is worse than committed by more than the tolerance, as sentences; empty when nothing is."""
    found = []
    for name, wanted in expected["ratio"].items():
        allowed = wanted * (1 + expected["tolerance"][name])
        value = measured["ratio"][name]
        if value > allowed:
            found.append(
                f"{name} takes {value:.2f} times {_BARE[name]}; {wanted:.2f} is committed, {allowed:.2f} allowed"
            )
    limit = expected["recommend_ms_below"]["p99"]
    if measured["recommend_ms"]["p99"] >= limit:
        found.append(f"p99 is {measured['recommend_ms']['p99']:.1f} ms; it must stay below {limit} ms")
    return found


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Command line: 1 on a regression."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.check", description=__doc__)
    parser.add_argument("--data", type=Path, metavar="DIR", help="a shop's folder (as make bench)")
    parser.add_argument("--requests", type=int, default=REQUESTS, help="pages to ask for (%(default)s)")
    arguments = parser.parse_args(argv)
    expected = json.loads(EXPECTED.read_text(encoding="utf-8"))
    measured = run(arguments.data, arguments.requests)
    measured["ratio"]["event"] = throughput.run_ratio()
    print(json.dumps(measured, indent=2))
    worse = regressions(measured, expected)
    for sentence in worse:
        print(f"regression: {sentence}")
    if not worse:
        print("no regression: " + ", ".join(f"{name} ratio {value}" for name, value in measured["ratio"].items()))
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
