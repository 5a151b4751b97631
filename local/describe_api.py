"""Write docs/openapi.json: the API as its code declares it, and refuse what would break clients unannounced."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from function_app import api
from local.api_changes import Change, changes
from shared.cli import command

ROOT: Final = Path(__file__).resolve().parents[1]
COMMAND: Final = "python -m local.describe_api"
ANNOUNCEMENT: Final = "**Breaking**"


def document_text(document: Mapping[str, Any]) -> str:
    """The document as it is committed: sorted, indented, ending in a newline."""
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def unannounced(found: Sequence[Change], changelog: str) -> list[Change]:
    """The breaking changes whose path no line with **Breaking** of the changelog's Unreleased section names."""
    section = re.search(r"^## \[Unreleased\]\n(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL)
    lines = [] if section is None else [line for line in section[1].splitlines() if ANNOUNCEMENT in line]
    named = {path for line in lines for path in re.findall(r"`(?:[A-Z]+ )?(/[^`\s]*)`", line)}
    return [one for one in found if one.breaking and one.path not in named]


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Write the document, or with --check compare and return 1 where it differs."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when it is not up to date")
    parser.add_argument("--page", type=Path, default=ROOT / "docs/openapi.json", help="default: docs/openapi.json")
    parser.add_argument("--changelog", type=Path, default=ROOT / "CHANGELOG.md", help="default: CHANGELOG.md")
    arguments = parser.parse_args(argv)
    return describe(api.openapi(), arguments.page, arguments.changelog, check=arguments.check)


def describe(document: Mapping[str, Any], page: Path, changelog: Path, *, check: bool) -> int:
    """Compare `document` with the page and, unless `check`, write it there; 1 when refused or different."""
    text = document_text(document)
    before = page.read_text(encoding="utf-8") if page.exists() else ""
    if text == before:
        print(f"{page.name}: up to date, {len(document['paths'])} paths")
        return 0
    found = changes(json.loads(before), json.loads(text)) if before else [Change("", f"there is no {page.name} yet")]
    told = "".join(f"  {one}\n" for one in found)
    if check:
        sys.stderr.write(f"{page.name} is not what the code declares:\n{told}run {COMMAND}\n")
        return 1
    if refused := unannounced(found, changelog.read_text(encoding="utf-8")):
        paths = sorted({f"`{one.path}`" for one in refused})
        sys.stderr.write(
            "this would break clients:\n"
            + "".join(f"  {one}\n" for one in refused)
            + f"keep it compatible, or announce it: a line with {ANNOUNCEMENT} that names {', '.join(paths)} under "
            f"Unreleased in {changelog.name}\n"
        )
        return 1
    page.write_text(text, encoding="utf-8")
    print(f"{page.name}: {len(document['paths'])} paths\n{told}", end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
