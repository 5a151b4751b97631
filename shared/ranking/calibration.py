"""How likely a score is to be a hit: a table fitted at night, read at request time."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from shared.errors import CorruptRecord


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    thresholds: list[float]
    values: list[float]


@dataclass(frozen=True)
class Calibration:
    """Probabilities `values` float64[k] at ascending scores `thresholds` float64[k], k >= 1; straight lines between."""

    thresholds: NDArray[np.float64]
    values: NDArray[np.float64]

    def __post_init__(self) -> None:
        """Raises CorruptRecord unless both are finite, of one length, and never fall, and values lie in [0, 1]."""
        whole = len(self.thresholds) == len(self.values) >= 1
        known = bool(np.isfinite(self.thresholds).all() and np.isfinite(self.values).all())
        rising = bool((np.diff(self.thresholds) >= 0).all() and (np.diff(self.values) >= 0).all())
        if not (whole and known and rising and self.values[0] >= 0 and self.values[-1] <= 1):
            raise CorruptRecord("a calibration table is two rising lists of one length, the second in [0, 1]")

    def probability(self, scores: NDArray[np.floating]) -> NDArray[np.float64]:
        """float64[n] in [0, 1] of float[n] scores; beyond the table its ends hold, NaN has NaN."""
        return np.interp(np.asarray(scores, dtype=np.float64), self.thresholds, self.values)

    def encode(self) -> bytes:
        """JSON: {"thresholds": [...], "values": [...]}."""
        return msgspec.json.encode(_Table(self.thresholds.tolist(), self.values.tolist()))

    @classmethod
    def decode(cls, data: bytes) -> Calibration:
        """The inverse of `encode`; raises CorruptRecord."""
        try:
            table = msgspec.json.decode(data, type=_Table)
        except msgspec.MsgspecError as error:
            raise CorruptRecord(f"the calibration cannot be read: {error}") from error
        return cls(np.array(table.thresholds, dtype=np.float64), np.array(table.values, dtype=np.float64))
