"""Retrieval of the three spans: what each may know, what is saved and mapped back, and the command's exits."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch.build_interactions import InteractionsSummary
from batch.build_neighbours import cut_lists
from batch.fit_retrieval import fit_span, main
from batch.interactions import PURCHASE, load_interactions
from batch.models.als import AlsParams
from batch.models.attributes import AttributeParams
from batch.models.cooccurrence import CooccurrenceParams
from batch.models.similar_items import similar_items
from batch.periods import Periods
from batch.retrieval_span import RetrievalParams, load_span, save_span, span_folder
from shared.adapters.stage_folder import replace_folder
from shared.candidates.params import SourceParams
from shared.candidates.query import ListKind
from shared.candidates.span import load_source_params
from shared.catalog import Product
from shared.errors import ConfigurationError
from shared.events import ItemId
from shared.features.definitions import Retrieval

DAY_MS = 24 * 3600 * 1000
PERIODS = Periods(60 * DAY_MS, 70 * DAY_MS, 80 * DAY_MS)
USERS, ITEMS = 30, 12
LABEL_ONLY, TEST_ONLY = 10, 11
"""Items met for the first time in the label period, and in the test period."""


def write_interactions(data: Path) -> None:
    """Users of two tastes; items 10 and 11 appear late."""
    generator = np.random.default_rng(0)
    rows = []
    for user in range(USERS):
        for at in np.sort(generator.integers(0, 80 * DAY_MS, 30)):
            late = [LABEL_ONLY] if at >= 60 * DAY_MS else []
            late += [TEST_ONLY] if at >= 70 * DAY_MS else []
            item = int(generator.choice([*range(5 * (user % 2), 5 * (user % 2) + 5), *late]))
            for step, kind in enumerate(("view", "cart", "purchase")[: int(generator.integers(1, 4))]):
                rows.append((user, item, kind, int(at) + step, f"s{user}-{at // (5 * DAY_MS)}"))
    users, items, kinds, instants, sessions = zip(*rows, strict=True)
    table = pa.table(
        {
            "user": pa.array(users, pa.int32()),
            "item": pa.array(items, pa.int32()),
            "event_type": pa.array(kinds),
            "at": pa.array(instants, pa.int64()),
            "enqueued_at": pa.array(instants, pa.int64()),
            "quantity": pa.array([1] * len(rows), pa.int32()),
            "session_id": pa.array(sessions),
        }
    )
    summary = InteractionsSummary(
        interactions=len(rows), users=USERS, items=ITEMS, by_type={}, dropped={}, oldest_at=0,
        newest_at=80 * DAY_MS - 1, fingerprint="", time_zone="UTC", periods=PERIODS,
    )  # fmt: skip
    with replace_folder(data / "nightly/interactions") as folder:
        pq.write_table(table, folder / "interactions.parquet")
        pq.write_table(pa.table({"item_id": [f"item-{n}" for n in range(ITEMS)]}), folder / "items.parquet")
        (folder / "summary.json").write_bytes(msgspec.json.encode(summary))


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("shop")
    write_interactions(data)
    assert main(["--data", str(data), "--factors", "8", "--iterations", "5"]) == 0
    return data


def test_a_span_knows_nothing_of_what_came_later(shop: Path) -> None:
    for span, unknown in (("fit", [LABEL_ONLY, TEST_ONLY]), ("fit_label", [TEST_ONLY])):
        found = load_span(shop, span)  # type: ignore[arg-type]  # mypy widens the literal of a loop
        assert np.abs(found.items.factors[unknown]).max() < 1e-6
        assert found.popularity[unknown].tolist() == [0] * len(unknown)
        assert found.weights[:, unknown].nnz == 0
        for kind in (ListKind.COOCCURRENCE, ListKind.TRANSITIONS):
            matrix = found.matrices[kind]
            assert matrix.nnz > 0
            assert matrix[:, unknown].nnz == matrix[unknown].nnz == 0
        assert found.baskets[:, unknown].nnz == 0
        lists = similar_items(found.items.factors, found.matrices[ListKind.COOCCURRENCE], 0, ITEMS, k=ITEMS)
        assert not np.isin(unknown, lists.indexes).any()
        assert (lists.indexes[unknown] == -1).all()
    everything = load_span(shop, "all")
    assert everything.popularity[TEST_ONLY] > 0
    assert everything.weights[:, [TEST_ONLY]].nnz > 0
    assert [load_span(shop, "fit").end_at, everything.end_at] == [PERIODS.fit_end_at, PERIODS.test_end_at]


def test_tastes_are_found_by_every_list(shop: Path) -> None:
    found = load_span(shop, "fit")
    for kind in ListKind:
        lists, _ = cut_lists(found, kind, 0, 10, 4)
        if kind is ListKind.ATTRIBUTES:
            assert (lists == -1).all(), "nothing is said of any product"
            continue
        same = (lists // 5 == np.arange(10)[:, None] // 5)[lists >= 0]
        assert same.size >= 10
        assert same.all()


def test_attributes_speak_of_what_the_catalogue_says_even_where_nobody_came(shop: Path) -> None:
    known = load_interactions(shop).known_before(PERIODS.fit_end_at)
    said = [
        Product(item_id=ItemId(f"item-{n}"), title=("red tea", "blue cup")[n // 5 % 2])
        if n != 9
        else Product(item_id=ItemId("item-9"))
        for n in range(ITEMS)
    ]
    found, _ = fit_span(
        known, said, USERS, ITEMS, end_at=PERIODS.fit_end_at, params=RetrievalParams(als=AlsParams(factors=2))
    )
    lists, _ = cut_lists(found, ListKind.ATTRIBUTES, 0, ITEMS, ITEMS)
    alike = [{n for n in row.tolist() if n >= 0} for row in lists]
    assert alike[0] >= {1, 2, 3, 4, LABEL_ONLY, TEST_ONLY}
    assert not alike[0] & {5, 6, 7, 8, 9}
    assert alike[LABEL_ONLY] >= {0, 1, 2, 3, 4}
    assert not alike[9], "of this one nothing was said by then"


def test_attributes_alone_are_what_they_are_beside_the_others(shop: Path) -> None:
    """They borrow from the transitions, so those are fitted too, unless nothing is to be borrowed."""
    known = load_interactions(shop).known_before(PERIODS.fit_end_at)
    said = [Product(item_id=ItemId(f"item-{n}"), title=f"w{n % 3}") for n in range(ITEMS)]
    for onward in (0.0, 2.0):
        params = RetrievalParams(als=AlsParams(factors=2), attributes=AttributeParams(onward=onward))
        whole, _ = fit_span(known, said, USERS, ITEMS, end_at=PERIODS.fit_end_at, params=params)
        alone, seconds = fit_span(
            known, said, USERS, ITEMS, end_at=PERIODS.fit_end_at, params=params, only={Retrieval.ATTRIBUTES}
        )
        found, expected = (one.matrices[ListKind.ATTRIBUTES].toarray() for one in (alone, whole))
        assert np.array_equal(found, expected)
        assert ("transitions" in seconds) == (onward > 0)
        lent = found[0, 1:5][[0, 1, 3]]  # its taste, met after it; unlike it but for what was borrowed
        assert (lent > 0).all() == (onward > 0)


def test_only_the_asked_sources_are_fitted(shop: Path) -> None:
    known = load_interactions(shop).known_before(PERIODS.fit_end_at)
    params = RetrievalParams(als=AlsParams(factors=4, iterations=2))
    whole, _ = fit_span(known, None, USERS, ITEMS, end_at=PERIODS.fit_end_at, params=params)
    for asked, other in ((Retrieval.COOCCURRENCE, "transitions"), (Retrieval.TRANSITIONS, "cooccurrence")):
        part, seconds = fit_span(known, None, USERS, ITEMS, end_at=PERIODS.fit_end_at, params=params, only={asked})
        kind = ListKind(asked.value)
        assert np.array_equal(cut_lists(part, kind, 0, ITEMS, 5)[0], cut_lists(whole, kind, 0, ITEMS, 5)[0])
        assert other not in seconds
        assert part.matrices[ListKind(other)].nnz == 0
        assert not part.items.factors.any()
        assert part.baskets.shape[0] == 0


def test_baskets_are_the_purchases_of_a_session(shop: Path) -> None:
    known = load_interactions(shop).known_before(PERIODS.fit_end_at)
    bought = known.where(known.event_type == PURCHASE)
    baskets: dict[tuple[int, int], set[int]] = {}
    for user, session, item in zip(bought.user, bought.session, bought.item, strict=True):
        baskets.setdefault((user, session), set()).add(int(item))
    matrix = load_span(shop, "fit").baskets
    found = [tuple(sorted(row)) for row in np.split(matrix.indices, matrix.indptr[1:-1])]
    assert sorted(found) == sorted(tuple(sorted(items)) for items in baskets.values())


def test_what_is_loaded_is_what_was_fitted(shop: Path, tmp_path: Path) -> None:
    params = RetrievalParams(als=AlsParams(factors=8, iterations=5))
    known = load_interactions(shop).known_before(PERIODS.fit_end_at)
    fitted, seconds = fit_span(known, None, USERS, ITEMS, end_at=PERIODS.fit_end_at, params=params)
    save_span(tmp_path, "fit", fitted, seconds)
    for loaded in (load_span(tmp_path, "fit"), load_span(shop, "fit")):
        assert loaded.params == params
        assert (loaded.items.regularization, loaded.items.alpha) == (params.als.regularization, params.als.alpha)
        assert np.array_equal(loaded.items.factors, fitted.items.factors)
        assert np.array_equal(loaded.items.gram, fitted.items.gram)
        assert np.array_equal(loaded.popularity, fitted.popularity)
        pairs = [(loaded.weights, fitted.weights), (loaded.baskets, fitted.baskets)]
        pairs += [(loaded.matrices[kind], matrix) for kind, matrix in fitted.matrices.items()]
        assert loaded.matrices.keys() == fitted.matrices.keys()
        for found, expected in pairs:
            assert np.array_equal(found.toarray(), expected.toarray())
            assert found.dtype == expected.dtype


def test_files_but_the_seconds_are_the_same_bytes_each_time(shop: Path, tmp_path: Path) -> None:
    write_interactions(tmp_path)
    assert main(["--data", str(tmp_path), "--factors", "8", "--iterations", "5"]) == 0
    for file in span_folder(shop, "all").iterdir():
        if file.name != "seconds.json":
            assert file.read_bytes() == (span_folder(tmp_path, "all") / file.name).read_bytes()
    assert set(json.loads((span_folder(shop, "all") / "seconds.json").read_bytes())) == {
        "weights", "als", "cooccurrence", "transitions", "attributes", "baskets",
    }  # fmt: skip


def test_parameters_come_from_a_file_or_the_folder_of_the_shop(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_interactions(tmp_path)
    command = ["--data", str(tmp_path), "--factors", "8", "--iterations", "1"]
    tuned = {"retrieval": {"cooccurrence": {"backward": 0.25}, "list_size": 7}, "sources": {"seeds": 3}}
    (tmp_path / "params.json").write_text(json.dumps(tuned))
    assert main(command) == 0
    assert load_span(tmp_path, "fit").params == RetrievalParams(
        cooccurrence=CooccurrenceParams(backward=0.25), list_size=7, als=AlsParams(factors=8, iterations=1)
    )
    assert load_source_params(tmp_path, "all") == SourceParams(seeds=3)
    (tmp_path / "other.json").write_text('{"retrieval": {"seed": 5}}')
    assert main([*command, "--params", str(tmp_path / "other.json")]) == 0
    assert load_span(tmp_path, "fit").params == RetrievalParams(als=AlsParams(factors=8, iterations=1), seed=5)
    assert load_source_params(tmp_path, "all") == SourceParams()
    (tmp_path / "params.json").write_text('{"retrieval": {"cooccurrence": {"sideways": 1}}}')
    assert main(command) == 2
    assert "retrieval.cooccurrence.sideways" in capsys.readouterr().err


def test_without_interactions_it_exits_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", str(tmp_path)]) == 2
    assert "batch.build_interactions" in capsys.readouterr().err
    with pytest.raises(ConfigurationError, match=r"batch\.fit_retrieval"):
        load_span(tmp_path, "fit")


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "stage"
    with replace_folder(folder) as new:
        (new / "old.txt").write_text("1")
    with pytest.raises(FileNotFoundError), replace_folder(folder) as new:
        (new / "missing" / "new.txt").write_text("2")
    assert [file.name for file in folder.iterdir()] == ["old.txt"]
    with replace_folder(folder) as new:
        (new / "new.txt").write_text("2")
    assert [file.name for file in folder.iterdir()] == ["new.txt"]
    assert [file.name for file in folder.parent.iterdir()] == ["stage"]


def test_a_crash_between_the_two_renames_is_mended(tmp_path: Path) -> None:
    folder = tmp_path / "stage"
    with replace_folder(folder) as new:
        (new / "old.txt").write_text("1")
    folder.rename(tmp_path / ".stage.old")
    with pytest.raises(RuntimeError), replace_folder(folder):
        raise RuntimeError
    assert [file.name for file in folder.iterdir()] == ["old.txt"]
