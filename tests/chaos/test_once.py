"""The small chaos run holds the promise, and a processor that lacks mark, ring or gap rule does not pass it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from tests.chaos.mutants import Mutant
from tests.chaos.report import Report


def run_of(folder: Path, *arguments: str) -> tuple[int, Report, str]:
    """A run in an interpreter of its own: it forks, and this one has threads."""
    out = folder / "report.json"
    command = [sys.executable, "-m", "tests.chaos.once", "--json", str(out), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert out.exists(), done.stderr
    return done.returncode, msgspec.json.decode(out.read_bytes(), type=Report), done.stdout


def test_state_and_log_equal_one_clean_pass_after_kills_at_every_named_point(tmp_path: Path) -> None:
    status, report, text = run_of(tmp_path, "--events", "3000", "--kills", "15", "--seed", "1")
    assert status == 0, text
    assert (report.lost, report.twice, report.differences) == (0, 0, 0)
    assert report.kills >= 15
    assert report.unreached == []
    assert report.restores >= 2
    assert min(report.batches_back) >= 10
    assert report.state_losses >= 1
    assert report.verdicts.keys() == {"accepted", "duplicate", "dead"}
    assert report.late > 0.03 * report.events


@pytest.mark.parametrize("mutant", Mutant)
def test_a_processor_without_it_is_found_out(mutant: Mutant, tmp_path: Path) -> None:
    status, report, text = run_of(tmp_path, "--events", "1200", "--kills", "4", "--seed", "3", "--mutant", mutant)
    assert status == 1, text
    found = {
        Mutant.MARK: report.lost + report.twice,
        Mutant.RING: report.twice,
        Mutant.GAP: report.lost,
    }
    assert found[mutant] > 0, text
    if mutant is not Mutant.MARK:  # without marks the log itself breaks, and sealing says so
        assert not any("ended by itself" in line for line in report.first), text
