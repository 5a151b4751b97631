"""What no committed file may be or hold: another machine's paths, registries, shapeless names, god modules."""

from __future__ import annotations

import io
import re
import tokenize
from pathlib import Path

MOST_LINES = 400  # aim for 300; above this a module has more than one responsibility
SHAPELESS_NAMES = {"common", "helper", "helpers", "misc", "util", "utils"}
SOURCE_SUFFIXES = {".py", ".ts", ".tsx", ".bicep"}

MACHINE_PATH = re.compile(r"(?<![\w.)}\]$])/(?:tmp|work|root|Users|home/(?!site\b)\w+)/")
REGISTRY = re.compile(
    r"\b(?:pypi\.org|pythonhosted\.org|npmjs\.org|yarnpkg\.com|crates\.io|golang\.org|maven\.org|repo\.maven|debian\.org)\b"
)
# A waiver names its rule and then its reason: "noqa: S603 - the command is ours", "type: ignore[misc]  # untyped base".
WAIVER = re.compile(r"#\s*(?:noqa|type:\s*ignore)")
WAIVER_WITH_REASON = re.compile(
    r"#\s*(?:noqa:\s*[A-Z]+\d+(?:,\s*[A-Z]+\d+)*|type:\s*ignore\[[\w, -]+\])\W+\w.{7,}", re.DOTALL
)


def text_files(root: Path, tracked_files: list[Path]) -> dict[Path, str]:
    found = {}
    for path in tracked_files:
        content = (root / path).read_bytes()
        if b"\0" not in content[:8000]:
            found[path] = content.decode("utf-8")
    return found


def findings(pattern: re.Pattern[str], files: dict[Path, str]) -> list[str]:
    return [
        f"{path}:{number}: {match[0]}"
        for path, text in files.items()
        for number, line in enumerate(text.splitlines(), start=1)
        for match in pattern.finditer(line)
    ]


def test_no_file_names_a_path_of_one_machine(root: Path, tracked_files: list[Path]) -> None:
    assert not findings(MACHINE_PATH, text_files(root, tracked_files))


def test_no_file_names_a_registry(root: Path, tracked_files: list[Path]) -> None:
    assert not findings(REGISTRY, text_files(root, tracked_files))


def test_the_patterns_find_what_they_are_for() -> None:
    paths = ["cd /" + "tmp/x", '"/' + 'home/ann/shop"', "=/" + "root/.cache", "file:///" + "Users/ann/"]
    assert all(MACHINE_PATH.search(text) for text in paths)
    harmless = [
        "/home/" + "site/wwwroot",
        "lake/" + "tmp/part",
        "{data}/" + "work/x",
        "https://example.com/" + "home/page",
    ]
    assert not any(MACHINE_PATH.search(text) for text in harmless)
    assert REGISTRY.search("https://" + "pypi" + ".org/simple")
    assert WAIVER_WITH_REASON.match("# noqa" + ": S603 - the command is ours")
    assert WAIVER_WITH_REASON.match("# type: " + "ignore[misc]  # the base class is untyped")
    assert not WAIVER_WITH_REASON.match("# noqa" + ": S603, S607")
    assert not WAIVER_WITH_REASON.match("# type: " + "ignore[misc]")


def test_no_module_is_a_god_module(root: Path, tracked_files: list[Path]) -> None:
    lengths = {
        path: len(text.splitlines())
        for path, text in text_files(root, tracked_files).items()
        if path.suffix in SOURCE_SUFFIXES
    }
    assert lengths, "found no source file at all"
    too_long = {str(path): length for path, length in lengths.items() if length > MOST_LINES}
    assert not too_long, f"more than {MOST_LINES} lines: {too_long}"


def test_every_module_has_a_name_that_says_something(tracked_files: list[Path]) -> None:
    shapeless = [
        str(path)
        for path in tracked_files
        if path.suffix in SOURCE_SUFFIXES and SHAPELESS_NAMES & {part.partition(".")[0] for part in path.parts}
    ]
    assert not shapeless


def test_every_waiver_gives_its_reason(root: Path, tracked_files: list[Path]) -> None:
    bare = [
        f"{path}:{token.start[0]}: {token.string}"
        for path, text in text_files(root, tracked_files).items()
        if path.suffix == ".py"
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.COMMENT and WAIVER.match(token.string) and not WAIVER_WITH_REASON.match(token.string)
    ]
    assert not bare, "a waiver without its reason on the same line: " + "; ".join(bare)
