"""The table of interactions that the nightly models read: who did what with which product, and when."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from shared.errors import ConfigurationError
from shared.events import EventType

INTERACTIONS_FOLDER: Final = "nightly/interactions"
BEHAVIOUR_TYPES: Final = (EventType.VIEW, EventType.CART, EventType.REMOVE_FROM_CART, EventType.PURCHASE)
"""An event type's code in `Interactions.event_type` is its position here."""

VIEW, CART, REMOVE_FROM_CART, PURCHASE = range(4)


@dataclass(frozen=True, slots=True)
class Interactions:
    """Equally long columns ordered by user, then effective time, then place in the log.

    user, item: dense indexes into users.parquet and items.parquet; event_type: code by `BEHAVIOUR_TYPES`; at: effective
    time and enqueued_at: the broker's, epoch ms; quantity: 1 when the event told none; session: equal numbers are one
    session of one user, -1 is none.
    """

    user: NDArray[np.int32]
    item: NDArray[np.int32]
    event_type: NDArray[np.int8]
    at: NDArray[np.int64]
    enqueued_at: NDArray[np.int64]
    quantity: NDArray[np.int32]
    session: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.user)

    def where(self, mask: NDArray[np.bool_]) -> Interactions:
        """The rows where the mask [n] is true, in order."""
        return Interactions(**{field.name: getattr(self, field.name)[mask] for field in fields(self)})

    def known_before(self, end_at: int) -> Interactions:
        """The rows enqueued before `end_at` (epoch ms)."""
        return self.where(self.enqueued_at < end_at)


def load_interactions(data: Path) -> Interactions:
    """Reads the interactions table of a shop's folder; raises ConfigurationError when it is not there."""
    path = data / INTERACTIONS_FOLDER / "interactions.parquet"
    if not path.exists():
        raise ConfigurationError(f"{path} is not there; run python -m batch.build_interactions --data {data} first.")
    return interactions_from_table(pq.read_table(path))


def interactions_from_table(table: pa.Table) -> Interactions:
    """The columns of an interactions table, its rows in order."""
    codes = pc.index_in(table["event_type"].cast(pa.string()), pa.array([str(kind) for kind in BEHAVIOUR_TYPES]))
    session = pc.fill_null(table["session_id"].cast(pa.string()).combine_chunks().dictionary_encode().indices, -1)
    return Interactions(
        user=_numbers(table["user"], np.int32),
        item=_numbers(table["item"], np.int32),
        event_type=_numbers(codes, np.int8),
        at=_numbers(table["at"], np.int64),
        enqueued_at=_numbers(table["enqueued_at"], np.int64),
        quantity=_numbers(pc.fill_null(table["quantity"], 1), np.int32),
        session=_numbers(session, np.int32),
    )


def count_rows(data: Path, name: str) -> int:
    """How many rows nightly/interactions/<name>.parquet has, read from its footer: users or items."""
    return int(pq.read_metadata(data / INTERACTIONS_FOLDER / f"{name}.parquet").num_rows)


def _numbers[T: np.generic](column: pa.ChunkedArray | pa.Array, kind: type[T]) -> NDArray[T]:
    return np.ascontiguousarray(np.asarray(column), dtype=kind)
