"""Write the table of routes and roles in docs/access.md: whom each route of the API lets in."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from function_app import api
from shared.cli import command

PAGE: Final = Path(__file__).resolve().parents[1] / "docs" / "access.md"
COMMAND: Final = "python -m local.describe_access"
BEGIN: Final = f"<!-- the table is made by `{COMMAND}` -->"
END: Final = "<!-- end of the table -->"
COLUMNS: Final = ("nothing", "her own token", "another's token", "service key", "operator key", "expired token")
CELLS: Final[Mapping[str, Sequence[str]]] = {
    "anyone": ("yes", "yes", "yes", "yes", "yes", "yes"),
    "reader": ("401", "yes", "403", "yes", "yes", "401"),
    "shopper": ("401", "yes", "403", "yes", "yes", "401"),
    "service": ("401", "403", "403", "yes", "yes", "401"),
    "operator": ("401", "403", "403", "403", "yes", "401"),
}
"""What each audience answers to each column's credentials."""


def table_of(document: Mapping[str, Any]) -> str:
    """The table as Markdown, ending in a newline.

    A route that is public but for a `user_id` among its parameters has two rows: without the parameter and with it.
    """
    lines = [f"| route | for | {' | '.join(COLUMNS)} |", "| --- " * (len(COLUMNS) + 2) + "|"]
    for path, operations in sorted(document["paths"].items()):
        for method, operation in sorted(operations.items()):
            audience = operation["x-audience"]
            name = f"{method.upper()} {path}"
            if audience == "reader":
                lines.append(_row(name, "anyone"))
                if "security" in operation:
                    lines.append(_row(f"{name}?user_id=", "reader"))
            else:
                lines.append(_row(name, audience))
    return "\n".join(lines) + "\n"


def page_of(document: Mapping[str, Any], before: str) -> str:
    """The page with the table in its place. Raises ValueError where the page has no place for it."""
    pattern = re.compile(f"(?<={re.escape(BEGIN)}\n).*?(?={re.escape(END)})", re.DOTALL)
    if not pattern.search(before):
        raise ValueError(f"there is no {BEGIN} with an {END} below it")
    return pattern.sub(lambda _: f"\n{table_of(document)}\n", before, count=1)


def _row(name: str, audience: str) -> str:
    return f"| `{name}` | {audience} | {' | '.join(CELLS[audience])} |"


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Write the table, or with --check compare and return 1 where it differs."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when the page is not up to date")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page (default: docs/access.md)")
    arguments = parser.parse_args(argv)
    before = arguments.page.read_text(encoding="utf-8")
    wanted = page_of(api.openapi(), before)
    if before == wanted:
        print(f"{arguments.page.name}: up to date")
        return 0
    if arguments.check:
        sys.stderr.write(f"{arguments.page.name} does not say whom the routes let in; run {COMMAND}\n")
        return 1
    arguments.page.write_text(wanted, encoding="utf-8")
    print(f"{arguments.page.name}: written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
