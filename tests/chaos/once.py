"""The chaos run: `python -m tests.chaos.once --events 200000 --kills 200 --seed S`.

Kills the processor at the worst moments, brings old copies of the state back, offers everything twice and out of
order, and then compares state, log and a following worker with one clean pass. Exit code 1 when anything differs.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # children are forked: this process may have no threads

from local.embedded import EmbeddedServers
from shared.adapters.folder_blob import FolderBlobStore
from shared.adapters.redis_connection import connect
from shared.cli import command
from shared.ingest.lake import LakeManifest, ShopSettings, SourceEntry, write_manifest
from tests.chaos.clean_pass import CleanPass
from tests.chaos.comparison import compare_all
from tests.chaos.conductor import Conductor
from tests.chaos.faults import Fault
from tests.chaos.mutants import Mutant
from tests.chaos.publisher import Publisher
from tests.chaos.report import Report, by_point, by_verdict, unreached
from tests.chaos.scale import SOURCE, Place, Scale, Trial, say
from tests.chaos.workload import Workload


def run_once(scale: Scale, seed: int, mutant: Mutant | None, folder: Path) -> Report:
    """One run in an empty folder; raises what the servers raise."""
    started = time.monotonic()
    entry = SourceEntry(name=SOURCE, partition_counts=(scale.partitions,))
    workload = Workload(scale, seed)
    with EmbeddedServers(folder) as servers:
        place = Place(folder, servers.state_url, servers.log_url)
        blobs = FolderBlobStore(place.lake)
        write_manifest(blobs, LakeManifest(version=1, shop=ShopSettings(), sources=(entry,)))
        with connect(place.state_url, timeout_ms=5000) as state, connect(place.log_url, timeout_ms=5000) as log:
            publisher = Publisher(scale, workload, log)
            run = Conductor(Trial(scale, seed, mutant, place), servers, publisher, (state, log))
            run.run()
            say("comparing with a clean pass")
            pass_started = time.monotonic()
            clean = CleanPass.over(publisher.records, scale.partitions)
            pass_seconds = time.monotonic() - pass_started
            table = None if run.followed is None else run.followed._table
            found = compare_all(clean, state, blobs, table)
    found.total += len(run.accidents)
    found.lines[:0] = run.accidents
    return Report(
        seed=seed,
        mutant=mutant,
        seconds=round(time.monotonic() - started, 1),
        clean_pass_seconds=round(pass_seconds, 1),
        events=len(publisher.records),
        verdicts=by_verdict(clean.verdicts()),
        late=workload.tally.late,
        partitions=scale.partitions,
        kills=run.deaths.done,
        kills_by_point=by_point(run.deaths.spent),
        unreached=unreached(run.deaths.spent, scale),
        restores=run.faults[Fault.RESTORE],
        batches_back=run.state_folder.batches_back,
        state_crashes=run.faults[Fault.CRASH],
        state_losses=run.faults[Fault.LOSS],
        compactions=run.faults[Fault.COMPACTION],
        lost=found.lost,
        twice=found.twice,
        differences=found.total,
        first=found.lines,
    )


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run once and print what was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.once", description=__doc__)
    parser.add_argument("--events", type=int, default=200_000, metavar="N", help="records of the log (200000)")
    parser.add_argument("--kills", type=int, default=200, metavar="N", help="kills of processes (200)")
    parser.add_argument("--seed", type=int, default=1, help="of the workload and of the kills (1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there as well")
    parser.add_argument("--mutant", type=Mutant, choices=list(Mutant), help="break the consumers: the run must fail")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="run in this empty folder and leave it behind")
    arguments = parser.parse_args(argv)
    if arguments.events < 1000 or arguments.kills < 0:
        parser.error("a run needs at least 1000 events, and kills cannot be fewer than none")
    folder = arguments.keep or Path(tempfile.mkdtemp(prefix="recommndr-chaos-"))
    try:
        report = run_once(Scale(arguments.events, arguments.kills), arguments.seed, arguments.mutant, folder)
    finally:
        if arguments.keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    sys.stdout.write(f"{report.text()}\n")
    if arguments.json is not None:
        arguments.json.write_bytes(report.json())
    return 0 if report.passed else 1


if __name__ == "__main__":
    sys.exit(main())
