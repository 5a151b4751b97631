"""Pages as they were shown, with what became of them: rows to learn from that clicks alone label."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from batch.models.position_bias import click_weights, estimate_examination
from batch.models.ranking_rows import RankingRows
from shared.events import EventType
from shared.features.vector import SCHEMA
from shared.ingest.exposures import read_exposures
from shared.ingest.lake import read_rows
from shared.ports import BlobStore, Verdict
from shared.ranking.grades import LABELS

_BINS: Final = 20
_COLUMNS: Final = ("verdict", "event_type", "item_id", "recommendation_id")


class _Exposure(msgspec.Struct, frozen=True):
    recommendation_id: str
    release: str
    schema: str
    user_id: str
    fallback: str | None
    items: list[str]
    scores: list[float]
    vectors: str


@dataclass(frozen=True)
class ExposedRows:
    """Rows of pages that a ranker ordered: labels from clicks, int64[n] positions from 0, float64[n] scores.

    `release` int64[n] numbers the release that scored each.
    """

    rows: RankingRows
    position: NDArray[np.int64]
    scores: NDArray[np.float64]
    release: NDArray[np.int64]

    def weighed(self) -> RankingRows:
        """The rows with every click weighed against its position, the examination learnt from these very clicks.

        Rows about equally relevant are those of one release in one of twenty equal parts by score.
        """
        kind = np.zeros(len(self.position), np.int64)
        for number in np.unique(self.release).tolist():
            of_release = np.flatnonzero(self.release == number)
            ranked = np.argsort(np.argsort(self.scores[of_release], kind="stable"), kind="stable")
            kind[of_release] = number * _BINS + ranked * _BINS // len(of_release)
        examined = estimate_examination(self.position, kind, self.rows.labels > 0)
        rows = self.rows
        return RankingRows(rows.features, rows.labels, rows.groups, rows.users, click_weights(self.position, examined))


def read_exposed(blobs: BlobStore) -> ExposedRows | None:
    """Pages on record that the ranker of this feature schema ordered and that led to an action; None without any.

    A row's label is the strongest accepted action that names its recommendation and its item. Users are numbered from
    0 by their ids. Raises CorruptRecord for a damaged file, LakeConflict when the lake changes meanwhile.
    """
    taken = _actions(blobs)
    pages: list[_Exposure] = []
    for line in read_exposures(blobs):
        page = _ranked_page(line)
        if page is not None and page.recommendation_id in taken:
            pages.append(page)
    if not pages:
        return None
    labels = [taken[page.recommendation_id].get(item, 0) for page in pages for item in page.items]
    groups = np.array([len(page.items) for page in pages], np.int64)
    release_of = {name: number for number, name in enumerate(sorted({page.release for page in pages}))}
    user_of = {name: number for number, name in enumerate(sorted({page.user_id for page in pages}))}
    features = np.vstack([_vectors(page) for page in pages])
    return ExposedRows(
        rows=RankingRows(
            features,
            np.array(labels, np.int64),
            groups,
            np.array([user_of[page.user_id] for page in pages], np.int64),
        ).checked(),
        position=np.concatenate([np.arange(count) for count in groups.tolist()]),
        scores=np.array([score for page in pages for score in page.scores], np.float64),
        release=np.repeat([release_of[page.release] for page in pages], groups),
    )


def _ranked_page(line: dict[str, Any]) -> _Exposure | None:
    """The page of a line; None where the ranker did not order it, or by other features."""
    if line.get("fallback") is not None or line.get("schema") != SCHEMA.digest or not line.get("items"):
        return None
    return msgspec.convert(line, _Exposure)


def _vectors(page: _Exposure) -> NDArray[np.float32]:
    flat = np.frombuffer(base64.b64decode(page.vectors), dtype="<f4")
    return flat.reshape(len(page.items), len(SCHEMA.names)).astype(np.float32)


def _actions(blobs: BlobStore) -> dict[str, dict[str, int]]:
    """The grade of each item acted on, by recommendation."""
    rows = read_rows(blobs, columns=_COLUMNS)
    kept = (pc.field("verdict") == Verdict.ACCEPTED.value) & pc.field("recommendation_id").is_valid()
    rows = rows.filter(kept)
    taken: dict[str, dict[str, int]] = {}
    columns = (rows[name].to_pylist() for name in ("recommendation_id", "item_id", "event_type"))
    for recommendation, item, kind in zip(*columns, strict=True):
        grade = LABELS.get(EventType(kind), 0)
        if item is not None and grade > taken.get(recommendation, {}).get(item, 0):
            taken.setdefault(recommendation, {})[item] = grade
    return taken
