"""The night's lists as they are published: read from the stages' Parquet in bounded pieces, and their digest."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from shared.candidates.query import ListKind
from shared.candidates.span import lists_folder
from shared.errors import ConfigurationError
from shared.releases.lists import NeighbourList, NightlyRecord

CANDIDATES_FOLDER: Final = "nightly/candidates"
RELEASE_FOLDER: Final = "nightly/release"
_ROWS_AT_ONCE: Final = 5000
_DIGEST_BYTES: Final = 16


class CandidatesSummary(msgspec.Struct, frozen=True):
    """Of what and when the lists are; `as_of` in epoch ms, `erasures` how many of the lake's they are without."""

    as_of: int
    users: int
    erasures: int = 0


def load_summary(data: Path) -> CandidatesSummary:
    """The summary of the stage's last run; raises ConfigurationError when there was none."""
    path = data / CANDIDATES_FOLDER / "summary.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=CandidatesSummary)
    except FileNotFoundError as error:
        raise ConfigurationError(
            f"{path} is not there; run python -m batch.build_candidates --data {data} first"
        ) from error


def built_release(data: Path) -> str:
    """The id that the stage wrote last; raises ConfigurationError when it has not run."""
    path = data / RELEASE_FOLDER / "release_id.txt"
    try:
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError as error:
        raise ConfigurationError(
            f"{path} is not there; run python -m batch.build_release --data {data} first"
        ) from error


def user_records(data: Path) -> Iterator[tuple[str, NightlyRecord]]:
    """Every user id with her record. Raises ConfigurationError when the stage has not run."""
    for batch in _batches(data / CANDIDATES_FOLDER, "batch.build_candidates"):
        users = batch["user_id"].to_pylist()
        newest_at, counts = batch["newest_at"].to_pylist(), batch["actions_count"].to_pylist()
        indexes, scores = _pieces(batch["indexes"], np.int32), _pieces(batch["scores"], np.float32)
        vectors = _pieces(batch["vector"], np.float32)
        for values in zip(users, newest_at, counts, indexes, scores, vectors, strict=True):
            yield values[0], NightlyRecord(*values[1:])


def item_lists(data: Path, kind: ListKind) -> Iterator[tuple[int, NeighbourList]]:
    """Every item index with its list fitted on all data. Raises ConfigurationError when the stage has not run."""
    for batch in _batches(lists_folder(data, "all", kind), "batch.build_neighbours"):
        items = batch["item"].to_pylist()
        indexes = _pieces(batch["indexes"], np.int32)
        for item, members, columns in zip(items, indexes, _nested(batch["columns"]), strict=True):
            yield item, NeighbourList(members, columns)


def digest_of_lists(data: Path) -> str:
    """A digest of everything that is published as lists, whatever files and order it lies in."""
    total = 0
    for user_id, record in user_records(data):
        total += _digest(f"user\x00{user_id}\x00".encode(), record.encode(""))
    for kind in ListKind:
        for item, neighbours in item_lists(data, kind):
            total += _digest(f"{kind.value}\x00{item}\x00".encode(), neighbours.encode(""))
    return f"{total % 2 ** (8 * _DIGEST_BYTES):032x}"


def _digest(key: bytes, data: bytes) -> int:
    return int.from_bytes(blake2b(key + data, digest_size=_DIGEST_BYTES).digest(), "little")


def _batches(folder: Path, module: str) -> Iterator[dict[str, Any]]:
    parts = sorted(folder.glob("*.parquet"))
    if not parts:
        raise ConfigurationError(f"{folder} holds no lists; run python -m {module} first")
    for part in parts:
        with pq.ParquetFile(part) as file:
            for batch in file.iter_batches(_ROWS_AT_ONCE):
                yield dict(zip(batch.schema.names, batch.columns, strict=True))


def _pieces[T: np.generic](column: pa.ListArray, kind: type[T]) -> list[NDArray[T]]:
    """The lists of a column as views of one array."""
    lengths = np.diff(np.asarray(column.offsets))
    values = np.asarray(column.flatten()).astype(kind, copy=False)
    return np.split(values, np.cumsum(lengths)[:-1]) if len(lengths) else []


def _nested(column: pa.ListArray) -> list[NDArray[np.float32]]:
    """The lists of equally long lists of a column, as float32[c, k] each."""
    inner = column.flatten()
    per_row = np.diff(np.asarray(column.offsets))
    ends = np.r_[0, np.cumsum(np.diff(np.asarray(inner.offsets)))][np.r_[0, np.cumsum(per_row)]]
    values = np.asarray(inner.flatten()).astype(np.float32, copy=False)
    return [
        values[start:end].reshape(count, (end - start) // max(count, 1))
        for start, end, count in zip(ends[:-1].tolist(), ends[1:].tolist(), per_row.tolist(), strict=True)
    ]
