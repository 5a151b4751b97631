"""The environment a Function App gets: requirements.txt, Microsoft's runtime and pytest, and nothing else."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

from shared.settings import described_settings

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".recommndr" / "environments"
ADDED = ("azure-functions-runtime", "pytest")
"""What the test itself needs; everything these two bring is theirs, not the project's."""

UNREACHABLE = re.compile(
    r"error sending request|failed to fetch|dns error|tcp connect error|network unreachable|network is unreachable"
    r"|connection refused|failed to establish a new connection|name resolution|timed out|max retries exceeded"
    r"|newconnectionerror|network connectivity is disabled|proxyerror|certificate verify failed",
    re.IGNORECASE,
)


class NoPackageIndex(Exception):
    """No package index can be reached, so that no environment can be made; the message is the installer's line."""


def bare_environment() -> Path:
    """The environment's interpreter; made at the first call, kept until requirements.txt or a pin changes.

    Raises NoPackageIndex, and RuntimeError when the packages do not go together.
    """
    requirements, constraints = (ROOT / name for name in ("requirements.txt", "constraints.txt"))
    text = f"{sys.version}{ADDED}{requirements.read_text()}{constraints.read_text()}"
    folder = CACHE / f"request-path-{sha256(text.encode()).hexdigest()[:12]}"
    python = folder / "bin" / "python"
    finished = folder / "finished"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "environments.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not finished.exists():
            for stale in CACHE.glob("request-path-*"):
                shutil.rmtree(stale)
            _create(folder, python, ["-r", str(requirements), "-c", str(constraints), *ADDED])
            finished.touch()
    return python


def bare_variables(**settings: str) -> dict[str, str]:
    """The process environment without what would let packages and settings of this one in; with these settings."""
    ours = {one.name for one in described_settings()} | {"VIRTUAL_ENV"}
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ours and not name.startswith(("PYTHON", "PYTEST", "COVERAGE"))
    }
    return kept | {"PYTHONPATH": str(ROOT)} | settings


def _create(folder: Path, python: Path, packages: list[str]) -> None:
    uv = shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    told = _run([sys.executable, "-m", "venv", *(["--without-pip"] if uv else []), str(folder)])
    if told is None and uv:
        told = _run([uv, "pip", "install", "--quiet", "--python", str(python), *packages])
        if told is not None and UNREACHABLE.search(told):
            shutil.rmtree(folder)  # pip reads other variables and files than uv: it may know another index
            uv, told = None, _run([sys.executable, "-m", "venv", str(folder)])
    if told is None and not uv:
        told = _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages])
    if told is not None:
        shutil.rmtree(folder, ignore_errors=True)
        unreachable = next((line for line in told.splitlines() if UNREACHABLE.search(line)), None)
        raise RuntimeError(told[-2000:]) if unreachable is None else NoPackageIndex(unreachable[:300])


def _run(command: list[str]) -> str | None:
    """None when it went well, else what it printed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=bare_variables(), cwd=ROOT)
    return None if done.returncode == 0 else f"{done.stdout}{done.stderr}"
