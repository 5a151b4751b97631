"""Made-up pages of which it is known who is right: a positive is what two independent sources agree on."""

from __future__ import annotations

import numpy as np

from batch.evaluation.lists_measured import ItemFacts
from shared.features.definitions import Retrieval
from shared.features.vector import SCHEMA
from shared.ranking.page_table import PageTable

ITEMS = 80
CARRIED = 25
SOURCES = list(Retrieval)
TWINS = (Retrieval.COOCCURRENCE, Retrieval.TRANSITIONS)
"""Two sources that say the same."""
ALONE = Retrieval.ALS
"""The source that says what no other does, and more than any other."""
NOISE = Retrieval.POPULAR


def made_pages(queries: int, seed: int = 0, *, repeats: float = 0.0) -> PageTable:
    """Queries of `queries` / 2 users; each positive is drawn by 1.4 times what ALONE says plus what the TWINS say.

    `repeats` is the share of positives that the user had touched before, of which no source knows anything.
    """
    generator = np.random.default_rng(seed)
    rows: dict[str, list[np.ndarray]] = {}
    for query in range(queries):
        alone, twins, noise = generator.normal(size=(3, ITEMS)).astype(np.float32)
        said = {ALONE: alone, TWINS[0]: twins, TWINS[1]: twins, NOISE: noise}
        wanted = int(np.argmax(1.4 * alone + twins + generator.gumbel(size=ITEMS) * 0.7))
        ranks = np.zeros((ITEMS, len(SOURCES)), dtype=np.int16)
        features = np.zeros((ITEMS, len(SCHEMA.names)), dtype=np.float32)
        for source, scores in said.items():
            best = np.argsort(-scores, kind="stable")[:CARRIED]
            ranks[best, SOURCES.index(source)] = np.arange(1, CARRIED + 1)
            lowest = scores.min() - 0.01
            features[:, column(f"retrieval_{source}_score")] = (scores - lowest) / (scores.max() - lowest)
        carried = ranks > 0
        for place, source in enumerate(SOURCES):
            reciprocal = np.divide(1, ranks[:, place], where=carried[:, place], out=np.zeros(ITEMS))
            features[:, column(f"retrieval_{source}_reciprocal_rank")] = reciprocal
        features[:, column("retrieval_sources_count")] = carried.sum(axis=1)
        touched = bool(generator.random() < repeats)
        features[:, column("user_tenure_days")] = query
        features[:, column("item_age_days")] = np.arange(ITEMS) % 7
        union = np.flatnonzero(carried.any(axis=1))
        history = int(generator.integers(1, 30))
        page = {
            "features": features[union],
            "index": union.astype(np.int32),
            "label": (union == wanted).astype(np.int8) * 3,
            "positive": union == wanted,
            "ranks": ranks[union],
            "popularity": noise[union],
            "category": union % 5,
            "seen": (union == wanted) & touched,
            "stranger": np.array([False]),
            "history": np.array([history], dtype=np.int32),
            "length": np.array([len(union)], dtype=np.int32),
            "candidates": np.array([len(union)], dtype=np.int32),
            "user": np.array([query // 2], dtype=np.int32),
            "as_of": np.array([1_700_000_000_000 + query]),
            "at_start": np.array([True]),
            "sessions_before": np.array([history // 4], dtype=np.int32),
            "positives": np.array([1], dtype=np.int32),
            "positive_items": np.array([wanted], dtype=np.int32),
            "touched": np.array([touched]),
            "frequent": np.full((1, 20), -1, dtype=np.int32),
        }
        for name, value in page.items():
            rows.setdefault(name, []).append(value)
    return PageTable(**{name: np.concatenate(values) for name, values in rows.items()})


def made_items() -> ItemFacts:
    """Facts of the items: five categories, a tenth of them new."""
    number = np.arange(ITEMS)
    return ItemFacts(np.maximum(0.0, number - 7.0), (number % 5).astype(np.int64), number < 8)


def column(name: str) -> int:
    """The place of a feature in the matrix."""
    return SCHEMA.names.index(name)
