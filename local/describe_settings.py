"""Write docs/settings.md: every setting as the table in shared/settings.py says it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from shared.cli import command
from shared.settings import SECRET_DEFAULT, SettingDescription, described_settings

PAGE: Final = Path(__file__).resolve().parents[1] / "docs" / "settings.md"
COMMAND: Final = "python -m local.describe_settings"


def page_of(settings: Sequence[SettingDescription]) -> str:
    """The whole page as Markdown, ending in a newline."""
    lines = [
        "# Settings",
        "",
        f"Made by `{COMMAND}` from the table in `shared/settings.py`; a test compares.",
        "Change the table, then run the command.",
        "",
        "A setting is an environment variable, on Azure an app setting. An absent or empty one takes its default;",
        "a value that makes no sense is refused with a message that names the setting and what it takes. The",
        "defaults fit one machine: `make serve` and `make demo` set `REDIS_URL`, `EVENT_LOG_URL` and `BLOB_URL` for",
        "what they start.",
        f"`{SECRET_DEFAULT}` is no secret: set another `USER_KEY_SECRET` before real shoppers come, and keep it.",
        "",
        "| setting | default | what it is for |",
        "| --- | --- | --- |",
    ]
    lines += [f"| `{one.name}` | {_default(one.default)} | {_cell(one.about)} |" for one in settings]
    return "\n".join(lines) + "\n"


def _default(text: str) -> str:
    return f"`{_cell(text)}`" if text else "empty"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Write the page, or with --check compare and return 1 where it differs."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when the page is not up to date")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page (default: docs/settings.md)")
    arguments = parser.parse_args(argv)
    settings = described_settings()
    wanted = page_of(settings)
    if not arguments.check:
        arguments.page.write_text(wanted, encoding="utf-8")
        print(f"{arguments.page.name}: {len(settings)} settings")
        return 0
    found = arguments.page.read_text(encoding="utf-8") if arguments.page.exists() else ""
    if found != wanted:
        sys.stderr.write(f"{arguments.page.name} does not say what shared/settings.py says; run {COMMAND}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
