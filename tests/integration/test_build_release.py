"""A release is named for its content, refuses features it was not trained on, and is registered in MLflow."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from batch.build_release import LiveSource, build_release, main, serving_sources
from batch.published_lists import built_release
from batch.tracking import CHAMPION, REGISTERED_MODEL, Tracking
from shared.adapters.folder_blob import FolderBlobStore
from shared.errors import ConfigurationError, SchemaMismatch
from shared.events import EventSource, EventType, ItemId
from shared.features.vector import SCHEMA
from shared.ingest.lake import LakeManifest, ShopSettings, SourceEntry, publish_history
from shared.ingest.lake_table import unnumbered_table
from shared.releases.bundle import load_bundle
from shared.search.index import SearchIndex, build_index
from tests.integration.linear_ranker import linear_ranker
from tests.integration.night_outputs import ITEMS, write_night
from tests.unit.builders import NOW, event

LIVE = LiveSource("live-1", 4)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """What the stages before build_release leave, made by hand."""
    data = tmp_path / "shop"
    write_night(data, "not-this-one", 5)
    items = [f"item-{number}" for number in range(ITEMS)]
    rows = [
        event(EventType.ITEM_UPDATED, user=None, item=one, at=NOW, event_id=one, changes={"title": one})
        for one in items
    ]
    publish_history(FolderBlobStore(data), "history-t", 2, ShopSettings(name="Test"), [unnumbered_table(rows)])
    write(data / "nightly/candidates/summary.json", {"as_of": NOW, "users": 70})
    write_items(data, items)
    folder = data / "nightly/retrieval/all"
    folder.mkdir(parents=True)
    factors = np.random.default_rng(1).normal(size=(ITEMS, 4)).astype(np.float32)
    np.save(folder / "item_factors.npy", factors)
    np.save(folder / "gram.npy", factors.astype(np.float64).T @ factors)
    write(folder / "params.json", {"regularization": 1.5, "alpha": 2.0})
    write(data / "nightly/training/summary.json", {"schema": SCHEMA.digest})
    write(data / "nightly/training/baseline.json", {"item_price_log": [0.0, 1.0]})
    interval = {"estimate": 0.5, "low": 0.4, "high": 0.6}
    report = {"methods": {"whole": {"all": {"ndcg": interval, "recall": interval}}}, "bars": []}
    write(
        data / "nightly/evaluation/report.json", report | {"k": 20, "queries": 3, "users": 2, "candidate_recall": 0.9}
    )
    (data / "nightly/onnx").mkdir()
    (data / "nightly/onnx/ranker.onnx").write_bytes(linear_ranker({"item_price_log": 1.0}))
    return data


def write(path: Path, document: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.encode(document))


def write_items(data: Path, items: list[str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (data / "nightly/interactions").mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"item_id": items}), data / "nightly/interactions/items.parquet")


def test_the_bundle_holds_what_the_night_made(shop: Path) -> None:
    manifest = build_release(shop, LIVE, created_at=123)
    assert manifest.release_id.startswith("20231114-")
    assert built_release(shop) == manifest.release_id
    bundle = load_bundle(FolderBlobStore(shop), manifest.release_id)
    assert bundle.manifest == manifest
    assert [entry.item_id for entry in bundle.entries] == [ItemId(f"item-{number}") for number in range(ITEMS)]
    assert bundle.entries[3].product().title == "item-3"
    assert manifest.als == {"regularization": 1.5, "alpha": 2.0}
    assert (manifest.items_count, manifest.users_count, manifest.as_of, manifest.created_at) == (ITEMS, 70, NOW, 123)
    assert manifest.sources == (EventSource("history-t", (2,)), EventSource("live-1", (4,)))
    assert manifest.evaluation["ndcg"] == {"whole": 0.5}
    assert manifest.drift_baseline == {"item_price_log": [0.0, 1.0]}
    assert manifest.shop_name == "Test"


def test_the_bundle_brings_the_trees_that_explain_its_ranker_where_there_are_any(shop: Path) -> None:
    blobs = FolderBlobStore(shop)
    bare = build_release(shop, LIVE, created_at=1)
    assert load_bundle(blobs, bare.release_id).trees is None
    (shop / "nightly/onnx/parts.npz").write_bytes(b"paths")
    explained = build_release(shop, LIVE, created_at=1)
    assert explained.release_id != bare.release_id
    assert load_bundle(blobs, explained.release_id).trees == b"paths"


def test_the_bundle_brings_the_search_index_of_its_catalogue(shop: Path) -> None:
    bundle = load_bundle(FolderBlobStore(shop), build_release(shop, LIVE, created_at=1).release_id)
    assert bundle.search is not None
    assert SearchIndex(bundle.search).postings("3").indexes.tolist() == [3]
    assert bundle.search == build_index(entry.product() for entry in bundle.entries), "equal catalogues, equal bytes"


def test_equal_nights_have_one_name_and_other_nights_another(shop: Path) -> None:
    first = build_release(shop, LIVE, created_at=1)
    assert build_release(shop, LIVE, created_at=2) == first, "what stands whole is left as it is"
    names = {first.release_id, build_release(shop, LiveSource("live-2", 4), created_at=1).release_id}
    (shop / "nightly/onnx/ranker.onnx").write_bytes(linear_ranker({"item_price_log": 2.0}))
    names.add(build_release(shop, LIVE, created_at=1).release_id)
    write_night(shop, "another", 6)  # other lists, under whose name nothing else may be published
    write(shop / "nightly/candidates/summary.json", {"as_of": NOW, "users": 70})
    names.add(build_release(shop, LIVE, created_at=1).release_id)
    assert len(names) == 4


def test_a_bundle_left_half_written_is_written_again(shop: Path) -> None:
    manifest = build_release(shop, LIVE, created_at=1)
    folder = shop / "releases" / manifest.release_id
    (folder / "manifest.json").unlink()
    (folder / "item_factors.npy").write_bytes(b"half")
    assert build_release(shop, LIVE, created_at=1) == manifest
    load_bundle(FolderBlobStore(shop), manifest.release_id)


def test_a_ranker_of_other_features_is_refused(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(shop / "nightly/training/summary.json", {"schema": "0ld"})
    with pytest.raises(SchemaMismatch, match="run the night from build_training_set"):
        build_release(shop, LIVE, created_at=1)
    assert main(["--data", str(shop)]) == 2
    assert "0ld" in capsys.readouterr().err


def test_an_item_that_the_lake_does_not_describe_is_named(shop: Path) -> None:
    write_items(shop, [*(f"item-{number}" for number in range(ITEMS - 1)), "unheard-of"])
    with pytest.raises(ConfigurationError, match="unheard-of"):
        build_release(shop, LIVE, created_at=1)


def test_the_live_source_keeps_every_partition_count_it_has_had() -> None:
    sources = (
        SourceEntry(name="history-t", partition_counts=(2,), kind="history"),
        SourceEntry(name="live-1", partition_counts=(2, 3)),
    )
    lake = LakeManifest(version=1, shop=ShopSettings(), sources=sources)
    assert serving_sources(lake, LiveSource("live-1", 3))[1] == EventSource("live-1", (2, 3))
    assert serving_sources(lake, LiveSource("live-1", 8))[1] == EventSource("live-1", (2, 3, 8))
    assert serving_sources(lake, LiveSource("live-2", 8))[2] == EventSource("live-2", (8,))


@pytest.mark.timeout(240)
def test_a_release_is_registered_once_and_the_published_one_is_champion(
    shop: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{shop / 'elsewhere.db'}")
    tracking = Tracking.of(shop)
    run_id = tracking.start_run(params={"trees": 3}, metrics={"ndcg": 0.5}, files=[shop / "nightly/onnx/ranker.onnx"])
    write(shop / "nightly/ranker/run.json", {"run_id": run_id})
    tracking.log(shop, metrics={"recall": 0.25})
    for _ in range(2):
        assert main(["--data", str(shop)]) == 0
        assert "as version 1" in capsys.readouterr().out
    release_id = built_release(shop)
    assert tracking.promote("never-registered") is None
    assert tracking.promote(release_id) == "1"
    client = MlflowClient(tracking_uri=tracking.uri, registry_uri=tracking.uri)
    champion = client.get_model_version_by_alias(REGISTERED_MODEL, CHAMPION)
    assert (champion.run_id, champion.tags["release_id"]) == (run_id, release_id)
    run = client.get_run(run_id)
    assert run.data.metrics == {"ndcg": 0.5, "recall": 0.25}
    assert run.data.params == {"trees": "3"}
    assert run.data.tags["git_revision"]
    assert champion.source is not None
    stored = Path(champion.source.removeprefix("file://")) / "ranker.onnx"
    assert stored.read_bytes() == (shop / "nightly/onnx/ranker.onnx").read_bytes()
