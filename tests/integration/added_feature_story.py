"""What must follow from one more declaration. `test_declared_once` runs this in a copy of the code that has it.

The feature counts a user's cart removals. Nothing here tells any part of the system of it.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feature_jobs import build_training_set, describe_features
from feature_jobs.recompute import Exposure
from functions.bootstrap import now_ms
from shared.candidates.query import ListKind
from shared.candidates.span import RETRIEVAL_FOLDER, lists_folder
from shared.events import EventType
from shared.features.aggregations import Count
from shared.features.vector import SCHEMA
from shared.ingest.exposures import read_exposures
from shared.ingest.lake import LakeManifest, ShopSettings, SourceEntry, write_manifest
from shared.ranking.page_table import load_pages
from tests.integration.api_shop import CATEGORIES, PER_CATEGORY, ApiShop, behaviour, item_id, neighbours, open_shop

NAME = "user_remove_from_cart_count_ever"
REMOVALS = Count((EventType.REMOVE_FROM_CART,))
COUNT = CATEGORIES * PER_CATEGORY


def main(state_url: str, log_url: str, folder: Path) -> None:
    column = SCHEMA.names.index(NAME)
    with open_shop(state_url, log_url, folder) as shop:
        for index in (20, 21):
            shop.click("zoe", index, "cart")
            shop.click("zoe", index, "remove_from_cart")
        assert folded(shop) == {2}, "the stream folds it"
        assert shop.get("/user_profile/zoe")["features"][NAME] == 2.0
        shop.page("zoe", limit=5)
        shop.services.exposures.flush()
        (line,) = read_exposures(shop.blobs)
        assert Exposure.of(line).logged()[:, column].tolist() == [2.0] * 5, "the ranker reads it"
        ends_at = [pause(), session(shop, 40), session(shop, 60)]
        shop.services.sealer.run()
        write_night(shop, folder, dict(zip(("fit_end_at", "label_end_at", "test_end_at"), ends_at, strict=True)))
    assert build_training_set.main(["--data", str(folder)]) == 0
    for period in ("label", "test"):
        pages = load_pages(folder, period)
        assert len(pages.features) > 5
        assert set(pages.features[:, column].tolist()) == {2.0}, "training reads it"
    table = folder / "features.md"
    assert describe_features.main(["--page", str(table)]) == 0
    (row,) = (text for text in table.read_text(encoding="utf-8").splitlines() if NAME in text)
    assert "| what she took out again | count of remove_from_cart |" in row


def folded(shop: ApiShop) -> set[int]:
    """What the shards in Redis say."""
    recommender = shop.services.recommender
    read = recommender._reader.shopper("zoe", recommender._releases.release_for("zoe"))
    states = [shard.state for shard in read.shards.values() if shard is not None]
    return {int(state.counts[state.layout.slot[REMOVALS]]) for state in states}


def session(shop: ApiShop, index: int) -> int:
    """She buys something in a session of its own; returns an instant after it."""
    shop.post(behaviour("zoe", index, "purchase", session_id=f"session-{index}"))
    shop.settle()
    return pause()


def pause() -> int:
    """An instant that lies apart from what came before and what comes after."""
    time.sleep(0.01)
    at = now_ms()
    time.sleep(0.01)
    return at


def write_night(shop: ApiShop, data: Path, periods: dict[str, int]) -> None:
    """The lake's manifest, and what the stages before the training set leave: items, factors, lists."""
    live = SourceEntry(name=shop.settings.event_source, partition_counts=(shop.settings.partition_count,))
    write_manifest(shop.blobs, LakeManifest(version=1, shop=ShopSettings(), sources=(live,)))
    interactions = data / "nightly/interactions"
    interactions.mkdir(parents=True)
    pq.write_table(pa.table({"item_id": [item_id(index) for index in range(COUNT)]}), interactions / "items.parquet")
    pq.write_table(pa.table({"user_id": pa.array([], pa.string())}), interactions / "users.parquet")
    (interactions / "summary.json").write_bytes(msgspec.json.encode({"periods": periods}))
    factors = np.eye(CATEGORIES, dtype=np.float32)[np.arange(COUNT) // PER_CATEGORY]
    lists = pa.table(
        {
            "item": pa.array(range(COUNT), pa.int32()),
            "indexes": pa.array([neighbours(index) for index in range(COUNT)], pa.list_(pa.int32())),
            "columns": pa.array(
                [[[1.0 / place for place, _ in enumerate(neighbours(index), start=1)]] for index in range(COUNT)],
                pa.list_(pa.list_(pa.float32())),
            ),
        }
    )
    for span in ("fit", "fit_label"):
        folder = data / RETRIEVAL_FOLDER / span
        folder.mkdir(parents=True)
        (folder / "params.json").write_bytes(msgspec.json.encode({"regularization": 1.0, "alpha": 1.0}))
        np.save(folder / "item_factors.npy", factors)
        np.save(folder / "gram.npy", factors.astype(np.float64).T @ factors)
        for kind in ListKind:
            lists_folder(data, span, kind).mkdir(parents=True)
            pq.write_table(lists, lists_folder(data, span, kind) / "part-00000.parquet")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
