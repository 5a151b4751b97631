"""`local/install.sh` says beforehand what a small disk would end half-way."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def install(tmp_path: Path, *, free_kib: int) -> subprocess.CompletedProcess[str]:
    """Install into this environment by an `uv` that does nothing, on a disk with so much left."""
    commands = tmp_path / "bin"
    commands.mkdir()
    says = {"df": f"printf 'Filesystem 1024-blocks Used Available\\ndisk 9 9 {free_kib}\\n'", "uv": "echo uv"}
    for name, line in says.items():
        (commands / name).write_text(f"#!/bin/sh\n{line}\n")
        (commands / name).chmod(0o755)
    return subprocess.run(
        ["sh", "local/install.sh", sys.prefix],
        cwd=ROOT,
        env={**os.environ, "PATH": f"{commands}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )


@pytest.mark.parametrize(("free_kib", "warned"), [(300_000, True), (4_999_999, True), (5_000_000, False)])
def test_little_room_is_said_before_it_runs_out(tmp_path: Path, free_kib: int, warned: bool) -> None:
    done = install(tmp_path, free_kib=free_kib)
    assert done.stdout.endswith("packages\n"), "it is a warning: most of it may lie in a cache already"
    assert (f"only {free_kib // 1024} MiB are free" in done.stderr) is warned
    assert ("UV_CACHE_DIR" in done.stderr) is warned
