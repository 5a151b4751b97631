"""A feature is declared in one place; whoever needs the list reads it from there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from shared.features.definitions import FEATURES

NAMES = sorted((one.name for one in FEATURES), key=len, reverse=True)
ANY_NAME = re.compile(r"\b(?:" + "|".join(NAMES) + r")\b")
DECLARED, GENERATED = Path("shared/features/definitions.py"), Path("docs/features.md")
ORACLE = Path("tests/unit/oracle.py")
"""Says every feature a second time, naively: what the declarations are compared with."""
MOST_IN_TESTS = 12
"""A test names the few features it looks at; more than that is a list that somebody has to keep."""


def listing(root: Path, files: list[Path]) -> set[Path]:
    """Files that name more features than one example (a test: a dozen) calls for."""
    found = set()
    for path in files:
        content = (root / path).read_bytes()
        if b"\0" in content[:8000]:
            continue
        most = MOST_IN_TESTS if path.parts[0] == "tests" else 1
        if len(set(ANY_NAME.findall(content.decode("utf-8")))) > most:
            found.add(path)
    return found


def test_no_other_file_lists_features(root: Path, tracked_files: list[Path]) -> None:
    assert listing(root, tracked_files) == {DECLARED, GENERATED, ORACLE}


@pytest.mark.parametrize(("folder", "named"), [("functions", 2), ("docs", 2), ("tests/unit", MOST_IN_TESTS + 1)])
def test_a_list_is_found_where_there_is_one(tmp_path: Path, folder: str, named: int) -> None:
    (tmp_path / folder).mkdir(parents=True)
    paths = [Path(folder) / "few.py", Path(folder) / "list.py"]
    for path, count in zip(paths, (named - 1, named), strict=True):
        (tmp_path / path).write_text(f"COLUMNS = {NAMES[:count]}", encoding="utf-8")
    assert listing(tmp_path, paths) == {paths[1]}
