"""Reads the pages that feature_jobs.build_training_set wrote."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from shared.errors import ConfigurationError, SchemaMismatch
from shared.features.vector import SCHEMA


@dataclass(frozen=True, slots=True)
class PageColumns:
    """q queries with n candidate rows; columns as `feature_jobs.page_table.PageTable` describes them."""

    features: NDArray[np.float32]
    index: NDArray[np.int32]
    label: NDArray[np.int8]
    positive: NDArray[np.bool_]
    ranks: NDArray[np.int16]
    popularity: NDArray[np.float32]
    category: NDArray[np.int64]
    stranger: NDArray[np.bool_]
    length: NDArray[np.int32]
    user: NDArray[np.int32]
    sessions_before: NDArray[np.int32]
    positives: NDArray[np.int32]
    positive_items: NDArray[np.int32]
    touched: NDArray[np.bool_]
    frequent: NDArray[np.int32]


def load_pages(data: Path, period: Literal["label", "test"]) -> PageColumns:
    """The pages of a period, memory-mapped.

    Raises:
        ConfigurationError: the training set has not been built.
        SchemaMismatch: it was built under another feature schema.
    """
    folder = data / "nightly/training"
    try:
        summary = msgspec.json.decode((folder / "summary.json").read_bytes())
        columns = {one.name: np.load(folder / period / f"{one.name}.npy", mmap_mode="r") for one in fields(PageColumns)}
    except FileNotFoundError as error:
        raise ConfigurationError(
            f"{folder} is not whole; run python -m feature_jobs.build_training_set --data {data} first"
        ) from error
    if summary["schema"] != SCHEMA.digest:
        raise SchemaMismatch(
            f"the training set has schema {summary['schema']}, this code {SCHEMA.digest}; build the training set again"
        )
    return PageColumns(**columns)
