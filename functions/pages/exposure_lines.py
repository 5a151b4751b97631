"""One exposure as a line of JSON: what was shown, and exactly what it was computed from."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, Final

import msgspec
import numpy as np

from functions.pages.shown_items import ShownItem
from functions.releases.item_follower import Part, Stock
from shared.features.definitions import STATE_VERSION
from shared.features.vector import SCHEMA
from shared.ports import Mark
from shared.recommend import Page

_ENCODER: Final = msgspec.json.Encoder()


def exposure_line(
    head: Mapping[str, Any], visibility: Mapping[Part, int], stock: Stock, page: Page, shown: list[ShownItem]
) -> bytes:
    """The line without its newline.

    `head` says who and what was asked. `visibility` holds the last sequence folded into each user shard read (-1: no
    shard), `item_marks` that of each partition's items (-1: none); keys are `<source>.<partition>`. `vectors` is
    float32[n, F] of the shown items in order, little-endian in base64; `retrieval_ranks` int[n, S],
    `retrieval_scores` [n, S] (sources in declared order), `retrieval_covisitation` [n, 2] and `retrieval_text` [n] are
    logged inputs.
    """
    positions = page.positions
    retrieval = page.candidates.retrieval
    return _ENCODER.encode(
        {
            **head,
            "state_version": STATE_VERSION,
            "schema": SCHEMA.digest,
            "features_count": len(SCHEMA.names),
            "visibility": {_name(part): sequence for part, sequence in visibility.items()},
            "item_marks": {_name(part): _sequence(mark) for part, mark in stock.marks.items()},
            "candidates_count": len(page.candidates.indexes),
            "items": [one.product.item_id for one in shown],
            "positions": [one.rank for one in shown],
            "scores": [one.score for one in shown],
            "sources": [[source.value for source in one.sources] for one in shown],
            "reasons": [one.reason for one in shown],
            "propensities": [one.propensity for one in shown],
            "retrieval_ranks": retrieval.ranks[positions].tolist(),
            "retrieval_scores": retrieval.scores[positions].tolist(),
            "retrieval_covisitation": retrieval.covisitation[positions].tolist(),
            "retrieval_text": retrieval.text[positions].tolist(),
            "vectors": base64.b64encode(page.features[positions].astype(np.dtype("<f4")).tobytes()).decode(),
        }
    )


def _name(part: Part) -> str:
    return f"{part[0]}.{part[1]}"


def _sequence(mark: Mark | None) -> int:
    return -1 if mark is None else mark.sequence
