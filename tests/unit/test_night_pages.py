"""Pages by the night's own stages: made once, and made again when something they are made from changed."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from batch.evaluation.night_pages import NightRequest, choose, night_pages, of_known_customers
from batch.evaluation.night_stages import StageRun, read_record, run_stages
from shared.adapters.folder_blob import FolderBlobStore
from shared.errors import ConfigurationError
from shared.events import Event, EventType
from shared.features.aggregations import DAY_MS
from shared.features.vector import SCHEMA
from shared.ingest.lake import ShopSettings, publish_history
from shared.ingest.lake_table import unnumbered_table
from shared.ranking.page_table import PageTable
from tests.unit.builders import NOW, event

STAGES = ("build_interactions", "fit_retrieval")
START = NOW - 40 * DAY_MS


def purchases(days: int) -> list[Event]:
    rows = [
        event(EventType.ITEM_UPDATED, user=None, item=f"i{n}", at=START, event_id=f"new {n}", changes={"title": "T"})
        for n in range(8)
    ]
    rows += [
        event(EventType.PURCHASE, user=f"u{n % 5}", item=f"i{n * n % 8}", at=START + n * DAY_MS // 4, event_id=f"{n}")
        for n in range(4 * days)
    ]
    return rows


def write_shop(data: Path, days: int) -> Path:
    publish_history(FolderBlobStore(data), f"history-{days}", 1, ShopSettings(), [unnumbered_table(purchases(days))])
    return data


def test_a_stage_runs_again_only_when_what_it_is_made_from_changed(tmp_path: Path) -> None:
    data, params = write_shop(tmp_path / "shop", 30), tmp_path / "shop/params.json"
    run = StageRun(data, STAGES, inputs={"fit_retrieval": [params]})
    made: list[str] = []
    run_stages(run, made.append)
    assert [line.split()[0] for line in made] == ["build_interactions", "fit_retrieval"]
    first = {name: read_record(data, name) for name in STAGES}

    def second(run: StageRun) -> list[str]:
        said: list[str] = []
        run_stages(run, said.append)
        return [line.split()[0] for line in said if "stands" not in line]

    assert second(run) == []
    params.write_bytes(msgspec.json.encode({"retrieval": {"als": {"factors": 4}}}))
    assert second(run) == ["fit_retrieval"]
    assert np.load(data / "nightly/retrieval/fit/item_factors.npy").shape == (8, 4)
    assert read_record(data, "build_interactions") == first["build_interactions"]
    alone = replace(run, names=STAGES[:1])
    assert second(alone) == []
    assert second(replace(alone, more={STAGES[0]: ["--data", str(data)]})) == ["build_interactions"]
    write_shop(data, 32)
    assert second(alone) == ["build_interactions"], "the lake is new"


def test_a_stage_that_left_half_its_outputs_runs_again(tmp_path: Path) -> None:
    run = StageRun(write_shop(tmp_path / "shop", 30), STAGES[:1])
    run_stages(run, print)
    (run.data / "nightly/interactions").rename(run.data / "nightly/gone")
    said: list[str] = []
    run_stages(run, said.append)
    assert "stands" not in said[0]
    assert (run.data / "nightly/interactions/users.parquet").exists()


def test_no_shop_two_shops_and_files_that_are_not_there_are_refused(tmp_path: Path) -> None:
    data = write_shop(tmp_path / "shop", 30)
    for request in (
        NightRequest(tmp_path / "w"),
        NightRequest(tmp_path / "w", data=data, interactions=tmp_path / "x.csv"),
        NightRequest(tmp_path / "w", data=tmp_path / "nothing here"),
        NightRequest(tmp_path / "w", data=data, params=tmp_path / "none.json"),
    ):
        with pytest.raises(ConfigurationError):
            night_pages(request, print)
    assert not (data / "nightly").exists(), "the shop itself is not written to"


def pages() -> PageTable:
    """Three pages: of a customer known before the period, of a stranger, and of that stranger's second visit."""
    values: dict[str, Any] = {
        "features": np.arange(6, dtype=np.float32)[:, None].repeat(len(SCHEMA.names), axis=1),
        "index": np.array([0, 1, 2, 3, 4, 5], np.int32), "label": np.zeros(6, np.int8),
        "positive": np.zeros(6, np.bool_), "ranks": np.zeros((6, 1), np.int16), "popularity": np.zeros(6, np.float32),
        "category": np.zeros(6, np.int64), "seen": np.zeros(6, np.bool_), "stranger": np.array([False, True, False]),
        "history": np.array([3, 0, 1], np.int32), "length": np.array([1, 2, 3], np.int32),
        "candidates": np.array([1, 2, 3], np.int32), "user": np.array([7, 2, 2], np.int32),
        "as_of": np.array([1, 2, 3]), "at_start": np.ones(3, np.bool_),
        "sessions_before": np.array([4, 0, 1], np.int32),
        "positives": np.array([2, 1, 1], np.int32), "positive_items": np.array([0, 9, 8, 3], np.int32),
        "touched": np.array([True, False, False, False]), "frequent": np.full((3, 20), -1, np.int32),
    }  # fmt: skip
    return PageTable(**{one.name: values[one.name] for one in fields(PageTable)})


def test_only_pages_of_customers_who_were_there_before_the_period_are_judged() -> None:
    table = pages()
    known = of_known_customers(table)
    assert known.tolist() == [True, False, False], "her second visit in the period makes a stranger no known customer"
    chosen = choose(table, np.array([True, False, True]))
    assert chosen.index.tolist() == [0, 3, 4, 5]
    assert chosen.features[:, 0].tolist() == [0, 3, 4, 5]
    assert chosen.length.tolist() == [1, 3]
    assert chosen.positive_items.tolist() == [0, 9, 3]
    assert chosen.touched.tolist() == [True, False, False]
    assert chosen.user.tolist() == [7, 2]
