"""From order lines to the evaluation report, without Spark: what a shop's history says does not depend on its date."""

from __future__ import annotations

import csv
import os
from dataclasses import fields
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from batch import build_interactions, evaluate_release, export_ranker, fit_retrieval, ingest_events, train_ranker
from batch.build_neighbours import cut_lists
from batch.interactions import count_rows
from batch.online_retail import read_order_lines
from batch.periods import SPANS
from batch.retrieval_span import load_span
from feature_jobs import build_training_set
from local.embedded import EmbeddedServers
from shared.candidates.query import ListKind
from shared.candidates.span import lists_folder
from shared.features.definitions import Retrieval
from shared.ranking.page_table import PageTable, load_pages
from tests.integration.api_shop import open_shop
from tests.integration.harness_lists import (
    chosen_pages,
    is_the_same_list,
    log_of,
    pages_of_the_api,
    pages_of_the_harness,
    publish,
    release_before_the_test_period,
)

COLUMNS = ("InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country")
CUSTOMERS, PRODUCTS, WEEKS = 120, 60, 10
WHOLE = Path(__file__).parents[3] / "shared/data/uci_online_retail.parquet"


def write_orders(path: Path) -> None:
    """Customers of four tastes who order weekly or so, mostly what they ordered before or what their kind orders."""
    rng = np.random.default_rng(11)
    start = datetime(2010, 12, 1, 9, 0)  # noqa: DTZ001 - the publisher's dates carry no zone either
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        for invoice in range(CUSTOMERS * WEEKS):
            customer = int(rng.integers(CUSTOMERS))
            at = start + timedelta(days=int(rng.integers(WEEKS * 7)), minutes=int(rng.integers(480)))
            for _ in range(int(rng.integers(2, 7))):
                own = (customer * 7 + int(rng.integers(3))) % 15
                product = customer % 4 * 15 + (own if rng.random() < 0.6 else int(15 * rng.random() ** 2))
                line = (
                    invoice + 500_000,
                    10_000 + product,
                    f"RED THING {product}",
                    1,
                    at.strftime("%Y-%m-%d %H:%M:%S"),
                )
                rows.writerow((*line, 1 + product / 10, 12_000 + customer, "United Kingdom"))


CALM = {"logit": {"popularity": False}, "lambdamart": {"popularity": False}}
"""Sixty items that differ in the last digit of a decayed sum: a split between two such values reads rounding."""


def build_lists(data: Path) -> None:
    """What batch.build_neighbours writes, in this process."""
    for span in SPANS:
        fitted = load_span(data, span)
        for kind in ListKind:
            indexes, columns = cut_lists(fitted, kind, 0, count_rows(data, "items"), 20)
            found = indexes >= 0
            rows = [
                {
                    "item": item,
                    "indexes": indexes[item][kept].tolist(),
                    "columns": [column[item][kept].astype(np.float32).tolist() for column in columns],
                }
                for item, kept in enumerate(found)
            ]
            folder = lists_folder(data, span, kind)
            folder.mkdir(parents=True)
            pq.write_table(pa.Table.from_pylist(rows), folder / "part-0.parquet")


def evaluated(orders: Path, data: Path, shift_weeks: int) -> dict[str, Any]:
    """Run the stages on one folder and return the report."""
    ingest = ["--format", "online_retail", "--path", str(orders), "--out", str(data), "--time-zone", "UTC"]
    assert ingest_events.main([*ingest, "--shift-weeks", str(shift_weeks)]) == 0
    (data / "params.json").write_bytes(msgspec.json.encode({"rankers": CALM}))
    assert build_interactions.main(["--data", str(data)]) == 0
    assert fit_retrieval.main(["--data", str(data), "--factors", "8"]) == 0
    build_lists(data)
    assert build_training_set.main(["--data", str(data), "--label-pages", "200", "--test-pages", "120"]) == 0
    assert train_ranker.main(["--data", str(data), "--trees", "15"]) == 0
    assert export_ranker.main(["--data", str(data)]) == 0
    assert evaluate_release.main(["--data", str(data)]) == 0
    report: dict[str, Any] = msgspec.json.decode((data / "nightly/evaluation/report.json").read_bytes())
    return report


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("evaluation")
    return root / "as-it-was", root / "shifted"


@pytest.fixture(scope="module")
def reports(folders: tuple[Path, Path]) -> tuple[dict[str, Any], dict[str, Any]]:
    orders = folders[0].parent / "orders.csv"
    write_orders(orders)
    return evaluated(orders, folders[0], 0), evaluated(orders, folders[1], 520)


@pytest.mark.timeout(400)  # two shops from order lines to report, on a machine that may be busy
def test_shifting_a_history_by_whole_weeks_changes_no_result(
    reports: tuple[dict[str, Any], dict[str, Any]], folders: tuple[Path, Path]
) -> None:
    as_it_was, shifted = reports
    as_it_was.pop("seconds"), shifted.pop("seconds")
    assert as_it_was == shifted
    before, after = (load_pages(folder, "test") for folder in folders)
    for column in fields(PageTable):
        if column.name == "as_of":
            continue
        assert np.array_equal(getattr(before, column.name), getattr(after, column.name)), column.name


@pytest.mark.timeout(400)  # see above
def test_the_report_compares_the_whole_to_every_source_on_the_same_queries(
    reports: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    report = reports[0]
    assert set(report["methods"]) == {"whole", "personal_frequency", *map(str, Retrieval)}
    whole, popular = (report["methods"][name]["all"] for name in ("whole", "popular"))
    assert whole["queries"] == popular["queries"] == report["queries"]
    assert whole["ndcg"]["low"] <= whole["ndcg"]["estimate"] <= whole["ndcg"]["high"]
    assert whole["ndcg"]["estimate"] > 1.5 * popular["ndcg"]["estimate"], "four tastes are there to be found"
    assert {bar["against"] for bar in report["bars"]} >= {"popular", "personal_frequency"}
    for bar in report["bars"]:
        assert bar["reached"] == (bar["ratio"]["estimate"] >= bar["bar"])


def assert_the_api_lists_what_the_harness_lists(shop_folder: Path, servers: EmbeddedServers, tmp_path: Path) -> None:
    log, data = log_of(shop_folder), tmp_path / "shop"
    asked = chosen_pages(pages_of_the_harness(shop_folder), 40)
    release_before_the_test_period(shop_folder, data, log, asked)
    with open_shop(servers.state_url, servers.log_url, data, stocked=False) as shop:
        publish(shop, data)
        answered = list(pages_of_the_api(shop, log, asked, tmp_path / "empty"))
    same = [is_the_same_list(page, answer) for (_, _, page), answer in zip(asked, answered, strict=True)]
    assert all(same), [(page, answer) for (_, _, page), answer in zip(asked, answered, strict=True)][same.index(False)]
    moved = sum(page != list(answer) for (_, _, page), answer in zip(asked, answered, strict=True))
    assert moved <= 4, "near ties are rare"
    assert len({tuple(page) for page in answered}) > 30, "people of different tastes see lists of their own"


@pytest.mark.timeout(400)  # see above
def test_the_api_lists_what_the_harness_lists_for_the_same_users_and_instants(
    reports: tuple[dict[str, Any], dict[str, Any]], folders: tuple[Path, Path], servers: EmbeddedServers, tmp_path: Path
) -> None:
    assert reports
    assert_the_api_lists_what_the_harness_lists(folders[0], servers, tmp_path)


@pytest.mark.timeout(400)  # see above
@pytest.mark.skipif(not WHOLE.is_file(), reason="the data set is not beside this checkout (../shared/data)")
@pytest.mark.skipif(not os.environ.get("REAL_DATA"), reason="takes a minute; REAL_DATA=1 runs it")
def test_the_api_lists_what_the_harness_lists_on_online_retails_first_months(
    servers: EmbeddedServers, tmp_path: Path
) -> None:
    lines = pq.read_table(WHOLE)
    some = lines.filter(pc.equal(pc.bit_wise_and(pc.fill_null(lines["CustomerID"], 1), 3), 0))
    early = some.filter(pc.less(pc.strftime(some["InvoiceDate"], "%Y-%m-%d"), "2011-03-15"))
    pq.write_table(early, tmp_path / "early.parquet")
    clean = read_order_lines(tmp_path / "early.parquet").clean
    # A release knows no product that comes later, and the harness numbers them all: those are left out.
    old = pa.array(clean["code"][clean["local_at"] < "2011-02-15"].unique().tolist())
    kept = pc.is_in(pc.utf8_upper(early["StockCode"].cast(pa.string())), value_set=old)
    pq.write_table(early.filter(kept), tmp_path / "orders.parquet")
    evaluated(tmp_path / "orders.parquet", tmp_path / "whole", 0)
    assert_the_api_lists_what_the_harness_lists(tmp_path / "whole", servers, tmp_path)
