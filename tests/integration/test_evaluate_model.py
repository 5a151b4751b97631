"""The harness on sets of a few users: what is in a report, what must not change it, and what is said of bad input."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch.evaluate_model import main
from batch.evaluation.pages import PageMaker, make_pages
from batch.evaluation.params import Parameters, load_parameters, replaced, value_of
from batch.evaluation.protocols import (
    EvaluationPages,
    EvaluationRequest,
    Workshop,
    make_evaluation_pages,
    read_split,
    tune_request,
)
from batch.evaluation.pseudo_events import ASKED_AT
from batch.evaluation.report import Report
from batch.evaluation.tuning import Journal, TuneBudget
from batch.evaluation.tuning_spaces import spaces
from shared.ranking.page_table import PageTable

USERS, ITEMS, LENGTH = 40, 16, 6
SMALL = {
    "retrieval": {"als": {"factors": 8, "iterations": 3}, "list_size": 10},
    "rankers": {"lambdamart": {"trees": 10, "min_data_in_leaf": 5}, "start": "zero"},
    "pages": {"label_pages": 30, "negatives": 8},
}


def rows(*, seed: int = 0) -> list[tuple[int, int, int]]:
    """Users who mostly go from an item to the next one, in circles."""
    generator = np.random.default_rng(seed)
    found = []
    for user in range(USERS):
        item = int(generator.integers(ITEMS))
        for place in range(LENGTH):
            found.append((user, place, item))
            item = (item + 1 if generator.random() < 0.8 else int(generator.integers(ITEMS))) % ITEMS
    return found


def write(path: Path, table: list[tuple[int, int, int]], rename: str = "{}") -> Path:
    users, places, items = zip(*table, strict=True)
    named = [rename.format(item * 7919 % 1009) for item in items] if rename != "{}" else [str(item) for item in items]
    pq.write_table(pa.table({"user": users, "pos": places, "item": named}), path)
    return path


def write_attributes(path: Path) -> Path:
    items = range(ITEMS + 1)
    pq.write_table(pa.table({"item": list(map(str, items)), "attributes": [[one // 4, 99] for one in items]}), path)
    return path


@pytest.fixture(scope="module")
def params(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("params") / "small.json"
    path.write_bytes(msgspec.json.encode(SMALL))
    return path


def request(tmp_path: Path, params: Path, interactions: Path, **more: object) -> EvaluationRequest:
    made = EvaluationRequest("leave_last_out", tmp_path / "work", load_parameters(params), interactions, processes=1)
    return replace(made, **more)  # type: ignore[arg-type] # fields by name


def command(tmp_path: Path, params: Path, interactions: Path, *more: str) -> tuple[int, Path]:
    report = tmp_path / "report.json"
    files = ["--interactions", str(interactions), "--work", str(tmp_path / "work"), "--out", str(report)]
    how = ["--params", str(params), "--ablation", "0", "--processes", "1", *more]
    return main(["--protocol", "leave_last_out", *files, *how]), report


def read(report: Path) -> Report:
    return msgspec.json.decode(report.read_bytes(), type=Report)


def assert_same_pages(one: PageTable, two: PageTable) -> None:
    for column in fields(PageTable):
        assert np.array_equal(getattr(one, column.name), getattr(two, column.name)), column.name


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, params: Path) -> tuple[Path, Path, Path]:
    """Folder, interactions and report of a whole run."""
    folder = tmp_path_factory.mktemp("measured")
    interactions = write(folder / "rows.parquet", rows())
    code, report = command(folder, params, interactions)
    assert code == 0
    return folder, interactions, report


def test_a_set_never_seen_before_is_measured_whole(measured: tuple[Path, Path, Path]) -> None:
    found = read(measured[2])
    assert found.queries == found.users == USERS
    assert found.label_queries == 30
    by_name = {method.name: method.metrics["ndcg@20"].estimate for method in found.methods}
    assert {"blend", "logit", "lambdamart", "cooccurrence", "als"} <= set(by_name)
    assert by_name["cooccurrence"] > 0.5, "four steps of five lead to the next item"
    assert by_name["popular"] < by_name["cooccurrence"]
    assert found.about.files == {str(measured[1]): found.about.files[str(measured[1])]}
    assert found.about.params_file.endswith("small.json")
    assert {"fit: als", "fit + label: als", "label: pages", "test: pages"} <= {part.name for part in found.parts}


def test_a_second_run_makes_nothing_again(measured: tuple[Path, Path, Path], params: Path) -> None:
    folder, interactions, report = measured
    before = read(report)
    made = {path: path.stat().st_mtime_ns for path in (folder / "work").rglob("*.npy")}
    assert made
    code, _ = command(folder, params, interactions)
    assert code == 0
    assert {path: path.stat().st_mtime_ns for path in (folder / "work").rglob("*.npy")} == made
    assert read(report).methods == before.methods


def test_other_names_of_the_same_items_change_no_number(
    measured: tuple[Path, Path, Path], params: Path, tmp_path: Path
) -> None:
    code, report = command(tmp_path, params, write(tmp_path / "renamed.parquet", rows(), "sku {}"))
    assert code == 0
    assert read(report).methods == read(measured[2]).methods


def pages_of(tmp_path: Path, params: Path, table: list[tuple[int, int, int]]) -> tuple[Workshop, EvaluationPages]:
    asked = request(tmp_path, params, write(tmp_path / "rows.parquet", table))
    return Workshop.of(asked, *read_split(asked)), make_evaluation_pages(asked)


def test_test_items_change_nothing_but_what_is_asked(params: Path, tmp_path: Path) -> None:
    plain = rows()
    last = [item for _, place, item in plain if place == LENGTH - 1]
    turned = [(user, place, last[user - 1] if place == LENGTH - 1 else item) for user, place, item in plain]
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    one, two = pages_of(tmp_path / "one", params, plain), pages_of(tmp_path / "two", params, turned)
    assert_same_pages(one[1].label, two[1].label)
    assert np.array_equal(one[1].test.features, two[1].test.features)
    assert np.array_equal(one[1].test.index, two[1].test.index)
    assert not np.array_equal(one[1].test.positive_items, two[1].test.positive_items)
    assert np.array_equal(one[1].facts.popularity, two[1].facts.popularity)
    fits = [
        shop.fitted("test", shop.split.test.known).model.neighbours["cooccurrence"].scores  # type: ignore[index] # a StrEnum
        for shop, _ in (one, two)
    ]
    assert np.array_equal(fits[0], fits[1])


def test_labels_are_unknown_to_what_makes_label_pages_and_to_the_test_without_refit(
    params: Path, tmp_path: Path
) -> None:
    interactions = write(tmp_path / "rows.parquet", rows())
    refitted = make_evaluation_pages(request(tmp_path, params, interactions))
    left = make_evaluation_pages(request(tmp_path, params, interactions, refit=False, work=tmp_path / "other"))
    assert_same_pages(refitted.label, left.label)
    assert refitted.facts.popularity.sum() - left.facts.popularity.sum() == USERS
    spans = list((tmp_path / "other" / "spans").iterdir())
    assert len(spans) == 1


def test_seen_items_are_masked_however_long_the_history(params: Path, tmp_path: Path) -> None:
    found = make_evaluation_pages(request(tmp_path, params, write(tmp_path / "rows.parquet", rows())))
    assert not found.test.seen.any()
    viewed = request(tmp_path, params, tmp_path / "rows.parquet", event_type="view", work=tmp_path / "views")
    assert not make_evaluation_pages(viewed).test.seen.any()


def test_a_longer_prefix_of_the_same_session_tells_nothing(params: Path, tmp_path: Path) -> None:
    sessions = pa.table(dict(zip(("session", "pos", "item"), zip(*rows(), strict=True), strict=True)))
    pq.write_table(sessions, tmp_path / "train.parquet")
    both = [([3, 4, 5, 12], 6), ([3, 4, 5], 12), ([8, 9], 10)]
    shops = {}
    for name, asked in (("both", both), ("short", both[1:])):
        prefixes, targets = zip(*asked, strict=True)
        pq.write_table(pa.table({"prefix": prefixes, "target": targets}), tmp_path / f"{name}.parquet")
        shops[name] = make_evaluation_pages(
            EvaluationRequest(
                "next_in_session",
                tmp_path / name,
                load_parameters(params),
                train=tmp_path / "train.parquet",
                test=tmp_path / f"{name}.parquet",
                processes=1,
            )
        )
    one, two = shops["both"].test, shops["short"].test
    skipped = int(one.length[0])
    assert np.array_equal(one.features[skipped:], two.features)
    assert np.array_equal(one.index[skipped:], two.index)
    assert one.user.tolist() == [USERS, USERS, USERS + 1]
    assert_same_pages(shops["both"].label, shops["short"].label)
    assert one.seen.any(), "what is in the prefix may come again"


def test_pages_do_not_depend_on_processes_or_on_being_stopped(
    params: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batch.evaluation.pages.CHUNK", 15)
    asked = request(tmp_path, params, write(tmp_path / "rows.parquet", rows()))
    shop = Workshop.of(asked, *read_split(asked))
    test = shop.split.test
    span = shop.fitted("test", test.known).model
    table = shop.item_table("test", test.known)
    maker = PageMaker.of(test.queries, table, span, asked.kind, masked=True, negatives=None, seed=0)
    whole = make_pages(maker, tmp_path / "whole", 1, lambda _: None)
    assert_same_pages(make_pages(maker, tmp_path / "two", 2, lambda _: None), whole)

    class StoppedError(Exception):
        pass

    def stop(done: int) -> None:
        if done:
            raise StoppedError

    with pytest.raises(StoppedError):
        make_pages(maker, tmp_path / "stopped", 1, stop)
    assert not (tmp_path / "stopped").exists()
    (part,) = (tmp_path / "stopped.parts").glob("0*")
    (tmp_path / "stopped.parts" / "00000015.unfinished").mkdir()
    told: list[int] = []
    assert_same_pages(make_pages(maker, tmp_path / "stopped", 1, told.append), whole)
    assert told == [15, 15, 10], part
    assert sum(told) == USERS


def test_attributes_make_categories_and_items_nobody_met(params: Path, tmp_path: Path) -> None:
    attributes = write_attributes(tmp_path / "attributes.parquet")
    asked = request(tmp_path, params, write(tmp_path / "rows.parquet", rows()), attributes=attributes)
    found = make_evaluation_pages(asked)
    assert len(found.facts.popularity) == ITEMS + 1
    assert found.facts.new.sum() == 1
    assert len(np.unique(found.facts.category)) == ITEMS // 4 + 1
    shop = Workshop.of(asked, *read_split(asked))
    product = shop.attributes.product(shop.split.names.index("9"))
    assert product.categories == ("a99", "a2"), "from the most frequent attribute to the rarest"


def test_tuning_tries_the_values_of_now_first_and_never_reads_the_test(params: Path, tmp_path: Path) -> None:
    last = LENGTH - 1
    swapped = [(user, place, 0 if place == last else item) for user, place, item in rows()]
    found: list[tuple[list[tuple[dict[str, object], float]], Parameters]] = []
    for name, table in (("one", rows()), ("two", swapped)):
        trials: list[tuple[dict[str, object], float]] = []
        asked = request(tmp_path, params, write(tmp_path / f"{name}.parquet", table), work=tmp_path / name)
        journal = Journal(lambda values, score, told=trials: told.append((values, score)), lambda _: None)  # type: ignore[misc] # a list bound now
        tuned = tune_request(asked, TuneBudget(trials=2), journal)
        found.append((trials, tuned.parameters))
    trials, tuned_parameters = found[0]
    tried = [values for values, _ in trials if values["source"] == "cooccurrence"]
    assert [values["trial"] for values in tried] == [0, 1]
    assert tried[0]["retrieval.cooccurrence.lag_decay"] == load_parameters(params).retrieval.cooccurrence.lag_decay
    best = max((score, values["trial"]) for values, score in trials if values["source"] == "cooccurrence")
    kept = tuned_parameters.retrieval.cooccurrence.lag_decay
    assert kept == tried[int(str(best[1]))]["retrieval.cooccurrence.lag_decay"]
    assert found[0] == found[1]


def test_what_is_tuned_on_knows_neither_labels_nor_test_items(params: Path, tmp_path: Path) -> None:
    asked = request(tmp_path, params, write(tmp_path / "rows.parquet", rows()))
    shop = Workshop.of(asked, *read_split(asked))
    bench = shop.bench()
    assert len(bench.fittable.known) == USERS * (LENGTH - 2)
    table = bench.maker.shelf.table
    counted = table.counters.counts_at(np.arange(len(table)), ASKED_AT).max(axis=1)
    assert counted.tolist() == np.bincount(bench.fittable.known.item, minlength=ITEMS).tolist()
    assert set(bench.maker.queries.positives.tolist()) <= set(shop.split.label.queries.positives.tolist())


def test_everything_that_is_searched_is_a_parameter_within_its_bounds() -> None:
    both = [Parameters(), replaced(Parameters(), {"retrieval.als.factor_model": "spectral"})]
    for parameters in both:
        for space in spaces(parameters).values():
            for tunable in space:
                assert tunable.low <= value_of(parameters, tunable.name) <= tunable.high, tunable.name
    assert spaces(both[0]) != spaces(both[1])


def test_bad_input_is_one_line_and_exit_code_2(
    params: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    interactions = write(tmp_path / "rows.parquet", rows())
    for more, said in (
        (["--item-column", "sku"], "no column 'sku'"),
        (["--item-column", "sku"], "--item-column"),
        (["--attributes", str(tmp_path / "none.parquet")], "there is no file"),
        (["--params", str(tmp_path)], "cannot be read"),
        (["--event-type", "sale"], "invalid choice"),
    ):
        code, _ = command(tmp_path, params, interactions, *more)
        assert code == 2, more
        assert said in capsys.readouterr().err, more
    assert main(["--protocol", "given_split", "--work", str(tmp_path), "--params", str(params)]) == 2
    assert "--train" in capsys.readouterr().err
    wrong = tmp_path / "wrong.json"
    for document, said in (
        ('{"retrieval": {"cooccurence": {}}}', "retrieval.cooccurence is no parameter"),
        ('{"sources": {"seeds": "many"}}', "sources.seeds must be like 20"),
        ('{"pages": 3}', "pages must be an object"),
        ("{", "wrong.json"),
    ):
        wrong.write_text(document)
        code, _ = command(tmp_path, wrong, interactions)
        assert code == 2, document
        assert said in capsys.readouterr().err, document


def test_parameters_change_by_dotted_name() -> None:
    changed = replaced(Parameters(), {"retrieval.als.alpha": 2, "sources.limits": {"als": 5}})
    assert changed.retrieval.als.alpha == 2.0
    assert changed.sources.limits == {"als": 5}
    assert changed.digest != Parameters().digest
    assert replaced(changed, {"sources.limits": {"repeat": 6}}).sources.limits == {"repeat": 6}
