"""Measure every row of docs/quality.md, and write that page from what was measured.

Rows stand in batch/evaluation/rows.yaml. A row that stands in the work folder from the same files, parameters and
commands is not measured again; one that was interrupted goes on. Exit codes: 0 all that must be is reached, 1 a bar is
missed or a command failed, 2 wrong use or no data.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Final

import msgspec

from batch.evaluation.quality_measured import FOLDER, Measured, read_measured, shortened, write_measured
from batch.evaluation.quality_page import DATA_NAME, PAGE, WORK_NAME, command_lines, missed, page_of_quality
from batch.evaluation.quality_rows import Row, chosen_rows, filled_commands, load_rows
from batch.evaluation.report_files import decode_report, read_json
from batch.evaluation.tree_memory import Spent, run_measured
from shared.cli import command
from shared.errors import ConfigurationError
from shared.features.vector import SCHEMA

ROOT: Final = Path(__file__).resolve().parents[1]
RUN_FILE: Final = "row.json"
REPORT_FILE: Final = "report.json"


class RowRun(msgspec.Struct):
    """How far a row has come: the fingerprint of what it is made from, commands done, and what they took so far."""

    inputs: str
    done: int = 0
    seconds: float = 0.0
    peak_mib: float = 0.0


@dataclass(frozen=True, slots=True)
class Bench:
    """Where the files lie and where rows are measured."""

    data: Path
    work: Path

    def run(self, row: Row) -> bool:
        """Run the commands that have not been run; False where one fails."""
        folder = self.work / row.name
        folder.mkdir(parents=True, exist_ok=True)
        state = self.state(row)
        commands = filled_commands(row, _from_root(self.data), _from_root(self.work), Path(row.params))
        for number in range(state.done, len(row.commands)):
            print(f"{row.name}, {number + 1} of {len(row.commands)}: {command_lines(row)[number]}", flush=True)
            module, *arguments = commands[number]
            code, spent = run_measured([sys.executable, "-m", module, *arguments], ROOT)
            state.seconds = round(state.seconds + spent.seconds, 1)
            state.peak_mib = max(state.peak_mib, spent.peak_mib)
            state.done = number + (code == 0)
            (folder / RUN_FILE).write_bytes(msgspec.json.encode(state))
            if code:
                print(f"{row.name}: the command ended with {code}; once that is mended, the same call goes on here")
                return False
        return True

    def state(self, row: Row) -> RowRun:
        """How far the row is; nothing where its files, parameters or commands are others than last time."""
        inputs, path = self._inputs(row), self.work / row.name / RUN_FILE
        held = decode_report(path, RowRun) if path.exists() else None
        return held if held is not None and held.inputs == inputs else RowRun(inputs)

    def measured(self, row: Row) -> Measured | None:
        """The row's short report where it has been measured whole, of whatever version."""
        path = self.work / row.name / RUN_FILE
        held = decode_report(path, RowRun) if path.exists() else None
        if held is None or held.done < len(row.commands):
            return None
        report = read_json(path.with_name(REPORT_FILE))
        # A command that was stopped is not in the former, parts of other commands are not in the latter.
        seconds = max(held.seconds, sum(part.seconds for part in report.parts))
        return shortened(row, report, Spent(round(seconds, 1), held.peak_mib))

    def check_files(self, rows: Sequence[Row]) -> None:
        """Raises ConfigurationError where a file that a row reads is not there."""
        wanted = sorted({file for row in rows for file in row.files})
        if wanted and not self.data.is_dir():
            raise ConfigurationError(
                f"there is no folder {self.data}: it holds the public data sets, which are not part of this project; "
                "name another with --data, or measure only SET=synthetic"
            )
        lacking = [file for file in wanted if not (self.data / file).is_file()]
        if lacking:
            raise ConfigurationError(f"{self.data} lacks {', '.join(lacking)}")

    def _inputs(self, row: Row) -> str:
        digest = blake2b(msgspec.json.encode([row.commands, row.files, SCHEMA.digest]), digest_size=8)
        for path in [*(self.data / file for file in row.files), *([ROOT / row.params] if row.params else [])]:
            if not path.is_file():
                raise ConfigurationError(f"{row.name}: there is no file {path}")
            stat = path.stat()
            is_params = path == ROOT / row.params
            digest.update(path.read_bytes() if is_params else f"{path.name} {stat.st_size}".encode())
        return digest.hexdigest()


def _from_root(path: Path) -> Path:
    """As commands, which run in the root of the checkout, and their reports name it."""
    whole = path.resolve()
    return whole.relative_to(ROOT, walk_up=True) if whole.is_relative_to(ROOT.parent) else whole


def write_docs(bench: Bench, root: Path) -> None:
    """Take over the short reports of rows that have been measured, then write the page from all that stand there."""
    rows = load_rows()
    for row in rows:
        measured = bench.measured(row)
        if measured is not None:
            write_measured(root / FOLDER, measured)
    found = read_measured(root / FOLDER, rows)
    (root / PAGE).write_text(page_of_quality(rows, found), encoding="utf-8")
    print(f"{PAGE} written: {len(found)} of {len(rows)} rows measured")


def _measure(bench: Bench, rows: Sequence[Row]) -> int:
    bench.check_files(rows)
    failed = [row.name for row in rows if not bench.run(row)]
    found = {row.name: measured for row in rows if (measured := bench.measured(row)) is not None}
    print(page_of_quality(rows, found).partition("## Bars\n\n")[2].partition("\n## ")[0])
    sentences = missed(rows, found)
    for sentence in sentences:
        print(f"MISSED: {sentence}")
    for name in failed:
        print(f"FAILED: {name}")
    print("python -m batch.quality --write-docs takes these into docs/quality.md")
    return 1 if failed or sentences else 0


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m batch.quality", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--set", default="", metavar="NAME", help="only the rows of this set, or of this name")
    parser.add_argument(
        "--data", type=Path, default=ROOT / DATA_NAME, metavar="DIR", help=f"the data sets (default {DATA_NAME})"
    )
    parser.add_argument(
        "--work", type=Path, default=ROOT / WORK_NAME, metavar="DIR", help=f"what is made (default {WORK_NAME})"
    )
    parser.add_argument("--again", action="store_true", help="forget what the work folder holds of these rows first")
    parser.add_argument("--list", action="store_true", help="show the rows and how far they are")
    parser.add_argument("--write-docs", action="store_true", help="measure nothing; write docs/quality.md")
    arguments = parser.parse_args(argv)
    bench = Bench(arguments.data, arguments.work)
    if arguments.write_docs:
        write_docs(bench, ROOT)
        return 0
    rows = chosen_rows(load_rows(), arguments.set)
    if arguments.list:
        for row in rows:
            how = "measured" if bench.measured(row) is not None else "not measured"
            print(f"{row.group:16}{row.name:28}{how:14}{row.title}")
        return 0
    if arguments.again:
        for row in rows:
            shutil.rmtree(bench.work / row.name, ignore_errors=True)
    return _measure(bench, rows)


if __name__ == "__main__":
    sys.exit(main())
