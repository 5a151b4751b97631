"""The pages for people: what they tell to run exists, and what they link to is there."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from urllib.parse import unquote

import pytest

MODULE = re.compile(r"python -m ([A-Za-z_][\w.]*)")
TARGET = re.compile(r"(?:^|`|&& )make ([a-z][a-z-]*)", re.MULTILINE)
LINK = re.compile(r"!?\[[^\]]*\]\(([^()\s]+)\)")
HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
CODE_BLOCK = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
THIRD_PARTY_MODULES = {"mlflow", "venv"}
PLACEHOLDERS = {"MODULE", "X"}


def pages(tracked_files: list[Path]) -> list[Path]:
    return [path for path in tracked_files if path.suffix == ".md"]


def anchor_of(heading: str) -> str:
    """As GitHub makes it: lower case, no punctuation, hyphens for spaces."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def modules_in(text: str) -> set[str]:
    return {name.rstrip(".") for name in MODULE.findall(text)} - PLACEHOLDERS - THIRD_PARTY_MODULES


def broken_links(root: Path, page: Path, text: str) -> list[str]:
    broken = []
    for link in LINK.findall(CODE_BLOCK.sub("", text)):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (root / page.parent / unquote(name)).resolve() if name else root / page
        if not target.is_relative_to(root) or not target.exists():
            broken.append(f"{page}: {link}")
        elif anchor:
            headings = HEADING.findall(CODE_BLOCK.sub("", target.read_text(encoding="utf-8")))
            if anchor not in map(anchor_of, headings):
                broken.append(f"{page}: {link} (no such heading)")
    return broken


def test_every_page_an_audience_needs_is_there(root: Path) -> None:
    for name in ("README.md", "CHANGELOG.md", "docs/api.md", "docs/ml.md", "docs/operations.md", "docs/settings.md"):
        assert (root / name).is_file(), name


def test_every_module_that_a_page_tells_to_run_can_be_run(root: Path, tracked_files: list[Path]) -> None:
    found = {(page, name) for page in pages(tracked_files) for name in modules_in((root / page).read_text())}
    assert len(found) > 10, "the pattern finds what it is for"
    missing = []
    for page, name in sorted(found):
        path = root / Path(*name.split(".")).with_suffix(".py")
        if not path.is_file():
            missing.append(f"{page}: python -m {name}")
        elif '__name__ == "__main__"' not in path.read_text(encoding="utf-8"):
            missing.append(f"{page}: {name} does nothing when run")
    assert not missing


def test_every_make_target_that_a_page_names_exists(root: Path, tracked_files: list[Path]) -> None:
    offered = set(re.findall(r"^([a-z][a-z-]*):", (root / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {(page, name) for page in pages(tracked_files) for name in TARGET.findall((root / page).read_text())}
    assert {"demo", "test"} <= {name for _, name in named}
    assert not [f"{page}: make {name}" for page, name in sorted(named) if name not in offered]


def test_every_relative_link_leads_somewhere(root: Path, tracked_files: list[Path]) -> None:
    checked = pages(tracked_files)
    assert not [link for page in checked for link in broken_links(root, page, (root / page).read_text())]


def test_the_patterns_find_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "there.md").write_text("# What *is* there?\n", encoding="utf-8")
    page = Path("page.md")
    good = "[a](there.md) [b](there.md#what-is-there) [c](https://example.com/x) ```\n"
    assert not broken_links(tmp_path, page, good)
    bad = "[a](gone.md) ![b](gone.svg) [c](there.md#gone) [d](../outside.md)"
    assert len(broken_links(tmp_path, page, bad)) == 4
    assert modules_in("run `python -m batch.run_nightly --data DIR`, python -m mlflow") == {"batch.run_nightly"}
    assert TARGET.findall("`make demo`\nmake bench-check ARGS=x\nthey make a list") == ["demo", "bench-check"]


@pytest.mark.parametrize("name", sorted(THIRD_PARTY_MODULES))
def test_the_modules_of_others_are_installed(name: str) -> None:
    assert importlib.util.find_spec(name) is not None
