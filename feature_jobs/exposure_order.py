"""Exposures one minute after the other, ordered so that what each worker had seen only moves on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import groupby

from feature_jobs.recompute import Exposure
from shared.ingest.exposures import exposure_files, read_exposure_file
from shared.ports import BlobStore

UNDER_WAY = 64
"""How many pages a worker may have under way at once: so many may be recorded in another order than they were made."""


def by_minute(blobs: BlobStore) -> Iterator[tuple[list[Exposure], set[str]]]:
    """The exposures minute by minute, and the workers of whom that was the last.

    One worker's exposures are in ascending order of its item marks, also across minutes: the last few of a minute wait
    for the next one. No more than a minute of each worker is in memory. Raises CorruptRecord for a damaged file.
    """
    files = exposure_files(blobs)
    left = Counter(worker for _, worker, _ in files)
    waiting: dict[str, list[Exposure]] = {}
    for _, group in groupby(files, key=lambda file: file[0]):
        found: list[Exposure] = []
        ended: set[str] = set()
        for _, worker, name in group:
            made = [*waiting.pop(worker, []), *read_exposure_file(blobs, name, Exposure)]
            made.sort(key=_seen)
            left[worker] -= 1
            if left[worker]:
                made, waiting[worker] = made[:-UNDER_WAY], made[-UNDER_WAY:]
            else:
                ended.add(worker)
            found += made
        found.sort(key=_seen)
        yield found, ended


def _seen(exposure: Exposure) -> tuple[int, int]:
    return sum(exposure.item_marks.values()), exposure.number
