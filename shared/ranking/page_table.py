"""Pages of the past as arrays: what a ranker learns from and is judged by, as files of .npy columns."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from shared.errors import ConfigurationError, SchemaMismatch
from shared.features.vector import SCHEMA, Matrix


@dataclass(frozen=True, slots=True)
class PageTable:
    """q queries with n candidate rows in all.

    features float32[n, F]; index int32[n] item; label int8[n] grade 0 to 3; positive bool[n]; ranks int16[n, S] by
    source; popularity float32[n] score of the popular source; category int64[n]; seen bool[n]: the user had touched it;
    stranger bool[q]: no history; history int32[q] distinct items she had touched; length int32[q] rows of each query;
    candidates int32[q] rows it would have, had no negatives been left out; user int32[q] number of the interactions'
    user (beyond them: others); as_of int64[q]; at_start bool[q]; sessions_before int32[q] earlier sessions of the user;
    positives int32[q] hits there are to be found; positive_items int32[sum(positives)] what they are (-1: an item
    retrieval could not know); touched bool of the same length: the user had acted on it before; frequent int32[q, 20]
    her most bought items (-1 pads).
    """

    features: Matrix
    index: NDArray[np.int32]
    label: NDArray[np.int8]
    positive: NDArray[np.bool_]
    ranks: NDArray[np.int16]
    popularity: NDArray[np.float32]
    category: NDArray[np.int64]
    seen: NDArray[np.bool_]
    stranger: NDArray[np.bool_]
    history: NDArray[np.int32]
    length: NDArray[np.int32]
    candidates: NDArray[np.int32]
    user: NDArray[np.int32]
    as_of: NDArray[np.int64]
    at_start: NDArray[np.bool_]
    sessions_before: NDArray[np.int32]
    positives: NDArray[np.int32]
    positive_items: NDArray[np.int32]
    touched: NDArray[np.bool_]
    frequent: NDArray[np.int32]

    def save(self, folder: Path) -> None:
        """One .npy file a column."""
        folder.mkdir(parents=True)
        for one in fields(self):
            np.save(folder / f"{one.name}.npy", getattr(self, one.name), allow_pickle=False)

    @classmethod
    def load(cls, folder: Path) -> PageTable:
        """The inverse of `save`, memory-mapped."""
        return cls(**{one.name: np.load(folder / f"{one.name}.npy", mmap_mode="r") for one in fields(cls)})


def load_pages(data: Path, period: Literal["label", "test"]) -> PageTable:
    """The pages of a period, memory-mapped.

    Raises:
        ConfigurationError: the training set has not been built.
        SchemaMismatch: it was built under another feature schema.
    """
    folder = data / "nightly/training"
    try:
        summary = msgspec.json.decode((folder / "summary.json").read_bytes())
        pages = PageTable.load(folder / period)
    except FileNotFoundError as error:
        raise ConfigurationError(
            f"{folder} is not whole; run python -m feature_jobs.build_training_set --data {data} first"
        ) from error
    if summary["schema"] != SCHEMA.digest:
        raise SchemaMismatch(
            f"the training set has schema {summary['schema']}, this code {SCHEMA.digest}; build the training set again"
        )
    return pages
