"""Exposures come minute by minute, each worker's in the order of what it had seen, and never more than a minute."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec

from feature_jobs.exposure_order import UNDER_WAY, by_minute
from feature_jobs.recompute import Exposure
from shared.adapters.folder_blob import FolderBlobStore
from shared.ingest.exposures import write_exposures

MINUTE_MS = 60_000


def line(worker: str, number: int, marks: dict[str, int]) -> bytes:
    exposure = Exposure(
        recommendation_id=f"{worker}.{number}", release="r", worker=worker, number=number, state_version="", schema="",
        features_count=0, user_id="ann", as_of=0, fallback=None, visibility={}, item_marks=marks, items=[],
        retrieval_ranks=[], retrieval_scores=[], vectors="",
    )  # fmt: skip
    return msgspec.json.encode(exposure)


def test_pages_recorded_out_of_order_come_in_the_order_of_their_marks_even_across_minutes(tmp_path: Path) -> None:
    blobs = FolderBlobStore(tmp_path)
    draw = random.Random(5)
    for worker, first_minute in (("w1", 0), ("w2", 1)):
        marks = [{"live-1.0": place, "live-1.1": 3 * place} for place in range(900)]
        # Threads: who began first may be recorded up to a few places later.
        order = sorted(range(900), key=lambda place: place + draw.uniform(0, UNDER_WAY / 4))
        lines = [line(worker, number, marks[place]) for number, place in enumerate(order, start=1)]
        for minute in range(3):
            at = (first_minute + minute) * MINUTE_MS
            write_exposures(blobs, worker, at, lines[300 * minute : 300 * (minute + 1)])

    found: dict[str, list[dict[str, int]]] = {"w1": [], "w2": []}
    ends: list[set[str]] = []
    for exposures, ended in by_minute(blobs):
        assert len(exposures) <= 2 * (300 + UNDER_WAY)
        ends.append(ended)
        for exposure in exposures:
            found[exposure.worker].append(exposure.item_marks)
    assert ends == [set(), set(), {"w1"}, {"w2"}]
    for marks in found.values():
        assert marks == [{"live-1.0": place, "live-1.1": 3 * place} for place in range(900)]


def test_without_exposures_there_is_nothing(tmp_path: Path) -> None:
    assert list(by_minute(FolderBlobStore(tmp_path))) == []
