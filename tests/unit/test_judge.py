"""The judge on made-up pages of which it is known what is best, what adds and what does not."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import numpy as np
import pytest

from batch.evaluation.calibrated import measure_calibration
from batch.evaluation.judge import PERSONAL_FREQUENCY, JudgeParams, Peer, judge
from batch.evaluation.label_rows import label_rows
from batch.evaluation.page_view import View, Without
from batch.evaluation.rankings import rank_by, rank_sources
from batch.evaluation.report import About, Kind, Report, Verdict
from batch.evaluation.report_files import read_json, write_json, write_page
from batch.metrics import hits_matrix, ndcg_at
from batch.models.ranker import RankerParams
from batch.models.rankers import RankersParams
from shared.errors import ConfigurationError, SchemaMismatch
from shared.features.definitions import Retrieval
from shared.features.vector import SCHEMA
from shared.ranking.page_table import PageTable
from tests.unit.made_pages import ALONE, ITEMS, NOISE, TWINS, made_items, made_pages

PARAMS = JudgeParams(
    rankers=RankersParams(lambdamart=RankerParams(trees=15, threads=1), start="zero"),
    ablation_label_queries=300,
    ablation_test_queries=200,
    samples=300,
)
ABOUT = About(
    title="Made-up <pages>",
    protocol="none & nothing",
    fitted=["sources on nothing"],
    files={"made.parquet": "0" * 64},
    command="python -m batch.evaluate_model --out a.json",
    params={"sources": {"als_decay": 0.7}},
)


@pytest.fixture(scope="module")
def test_pages() -> PageTable:
    return made_pages(240, seed=2, repeats=0.3)


@pytest.fixture(scope="module")
def report(test_pages: PageTable) -> Report:
    known = test_pages.positive_items[:, None]
    peers = [Peer("oracle", np.asarray(known), np.asarray(known)), Peer("nothing", np.full((240, 20), -1, np.int32))]
    return judge(
        made_pages(320, seed=1), test_pages, made_items(), PARAMS, about=ABOUT, peers=peers, say=lambda _: None
    )


def test_the_best_source_and_what_beats_it_are_found(report: Report) -> None:
    assert report.best_source == ALONE
    assert {one.name for one in report.methods if one.kind is Kind.SOURCE} == {*map(str, TWINS), str(ALONE), str(NOISE)}
    serves = report.method(report.serves)
    assert serves.kind is Kind.RANKER
    assert serves.against_best is not None
    assert serves.against_best.verdict is Verdict.ABOVE
    noise = report.method(NOISE).against_best
    assert noise is not None
    assert noise.verdict is Verdict.BELOW
    assert report.method(ALONE).against_best is None
    assert report.method(report.serves).serving_against is None
    assert PERSONAL_FREQUENCY not in {one.name for one in report.methods}, "nobody bought anything"


def test_peers_are_measured_by_the_same_metrics(report: Report) -> None:
    assert report.method("oracle").metrics["ndcg@20"].estimate == 1
    assert report.method("nothing").metrics["ndcg@20"].estimate == 0
    against = report.method("oracle").serving_against
    assert against is not None
    assert against.verdict is Verdict.BELOW
    nothing = report.method("nothing").serving_against
    assert nothing is not None
    assert nothing.ratio is None


def test_a_source_that_says_what_no_other_does_is_missed_and_a_twin_is_not(report: Report) -> None:
    assert report.ablation is not None
    rows = {(row.kind, row.name): row for row in report.ablation.rows}
    alone = rows["source", str(ALONE)]
    assert alone.verdict is Verdict.ABOVE
    assert alone.candidate_recall < report.ablation.candidate_recall - 0.05
    for twin in TWINS:
        assert rows["source", str(twin)].verdict is not Verdict.ABOVE
        assert rows["source", str(twin)].loss.estimate < alone.loss.estimate / 10
        assert rows["source", str(twin)].candidate_recall == report.ablation.candidate_recall
    retrieval = rows["feature group", "retrieval"]
    assert retrieval.loss.estimate > 0.75 * report.ablation.metric, "little is left without what sources say"
    assert rows["feature group", "user"].loss.estimate == pytest.approx(0, abs=1e-9)


def test_recall_of_candidates_grows_with_k_and_the_union_holds_the_most(report: Report, test_pages: PageTable) -> None:
    rows = {row.name: row for row in report.candidate_recall}
    ranks = test_pages.ranks[test_pages.positive]  # one positive a query
    of_alone = ranks[:, list(Retrieval).index(ALONE)]
    assert rows[str(ALONE)].at["20"] == pytest.approx(((of_alone > 0) & (of_alone <= 20)).sum() / 240)
    assert rows[str(ALONE)].all == pytest.approx((of_alone > 0).sum() / 240)
    assert rows["merged"].at["20"] == pytest.approx(((ranks > 0) & (ranks <= 20)).any(axis=1).sum() / 240)
    assert rows[str(ALONE)].at["20"] < rows[str(ALONE)].all
    assert rows["merged"].all == max(row.all for row in rows.values())
    for row in rows.values():
        assert row.at["20"] <= row.at["100"] <= row.at["200"] <= row.all
    assert rows[str(ALONE)].candidates == 25


def test_segments_part_the_queries_and_know_what_is_new_to_the_user(report: Report, test_pages: PageTable) -> None:
    history = [one for one in report.segments if one.name.startswith("history")]
    assert sum(one.queries for one in history) == report.queries
    assert report.segment("new_users").queries + report.segment("known_users").queries == report.queries
    new = report.segment("new_to_user")
    assert new.queries == int((~test_pages.touched).sum()) < report.queries
    assert new.methods["oracle"]["recall@20"].estimate == 1
    assert set(new.methods[report.serves]) == {"ndcg@20", "recall@20", "hit_rate@20", "mrr@20"}


def test_masked_lists_hold_nothing_seen(test_pages: PageTable) -> None:
    view = replace(View.whole(test_pages), unseen=True)
    lists = rank_sources(view, [ALONE])[ALONE].lists
    owner = np.repeat(np.arange(len(test_pages.length)), test_pages.length)
    seen = set(zip(owner[test_pages.seen].tolist(), test_pages.index[test_pages.seen].tolist(), strict=True))
    shown = {(query, item) for query, row in enumerate(lists.tolist()) for item in row if item >= 0}
    plain = rank_sources(View.whole(test_pages), [ALONE])[ALONE].lists
    assert seen & {(query, item) for query, row in enumerate(plain.tolist()) for item in row}
    assert not seen & shown


def test_a_source_is_ranked_in_its_own_order(test_pages: PageTable) -> None:
    found = rank_sources(View.whole(test_pages), [NOISE])[NOISE]
    lists = np.full((len(test_pages.length), 20), -1)
    starts = np.cumsum(test_pages.length) - test_pages.length
    for query, (start, length) in enumerate(zip(starts, test_pages.length, strict=True)):
        ranks = test_pages.ranks[start : start + length, list(Retrieval).index(NOISE)]
        carried = np.flatnonzero(ranks)
        best = carried[np.argsort(ranks[carried])][:20]
        lists[query, : len(best)] = test_pages.index[start + best]
    assert found.lists.tolist() == lists.tolist()
    hits = hits_matrix(lists, [[item] for item in test_pages.positive_items.tolist()])
    assert found.places.ndcg(20) == pytest.approx(ndcg_at(hits, test_pages.positives, 20))


def test_blocks_change_nothing(test_pages: PageTable, monkeypatch: pytest.MonkeyPatch) -> None:
    view = View.whole(test_pages)
    column = SCHEMA.names.index(f"retrieval_{ALONE}_score")
    whole = rank_by(view, {"one": lambda rows: rows[:, column]}, 0)["one"]
    monkeypatch.setattr("batch.evaluation.page_view._ROWS_AT_ONCE", 300)
    assert sum(1 for _ in view.blocks()) > 20
    parts = rank_by(view, {"one": lambda rows: rows[:, column]}, 0)["one"]
    assert parts.lists.tolist() == whole.lists.tolist()
    assert parts.places.ndcg(20) == pytest.approx(whole.places.ndcg(20))
    some = rank_by(replace(view, chosen=np.array([3, 8, 200])), {"one": lambda rows: rows[:, column]}, 0)["one"]
    assert some.lists.tolist() == whole.lists[[3, 8, 200]].tolist()
    assert some.places.ndcg(20) == pytest.approx(whole.places.ndcg(20)[[3, 8, 200]])


def test_a_stranger_sees_what_is_popular(test_pages: PageTable) -> None:
    strangers = replace(test_pages, stranger=np.ones_like(test_pages.stranger))
    lists = rank_by(View.whole(strangers), {"one": lambda rows: np.zeros(len(rows), np.float32)}, 0)["one"].lists
    popular = rank_sources(View.whole(test_pages), [NOISE])[NOISE].lists
    assert lists.tolist() == popular.tolist()


def test_the_rule_of_so_many_of_a_category_is_on(test_pages: PageTable) -> None:
    category = made_items().category
    lists = rank_by(View.whole(test_pages), {"one": lambda rows: -rows[:, column_of_age()]}, 4)["one"].lists
    assert (lists >= 0).all()
    assert max(np.bincount(category[row]).max() for row in lists) == 4
    free = rank_by(View.whole(test_pages), {"one": lambda rows: -rows[:, column_of_age()]}, 0)["one"].lists
    assert max(np.bincount(category[row]).max() for row in free) > 4


def column_of_age() -> int:
    return SCHEMA.names.index("item_age_days")


def test_what_only_the_source_carries_goes_with_it(test_pages: PageTable) -> None:
    without = Without.of_source(ALONE)
    column = list(Retrieval).index(ALONE)
    only = (test_pages.ranks[:, column] > 0) & (np.count_nonzero(test_pages.ranks, axis=1) == 1)
    left = replace(View.whole(test_pages), without=without)
    blocks = list(left.blocks())
    assert sum(len(block.rows) for block in blocks) == len(only) - only.sum()
    features = np.concatenate([block.features for block in blocks])
    assert not features[:, SCHEMA.names.index(f"retrieval_{ALONE}_score")].any()
    counted = np.concatenate([np.count_nonzero(np.delete(block.ranks, column, axis=1), axis=1) for block in blocks])
    assert features[:, SCHEMA.names.index("retrieval_sources_count")].tolist() == counted.tolist()
    assert not (set(without.columns.tolist()) & set(Without.of_source(NOISE).columns.tolist()))


def test_thinned_pages_keep_what_is_graded_and_the_same_others_without_a_source(test_pages: PageTable) -> None:
    view = replace(View.whole(test_pages), chosen=np.array([5, 7, 100, 101]))
    whole = label_rows(view)
    thin = label_rows(view, 10, seed=3)
    assert whole.groups.tolist() == test_pages.length[view.chosen].tolist()
    assert thin.groups.tolist() == [11] * 4
    assert thin.labels.sum() == whole.labels.sum()
    assert label_rows(view, 10, seed=4).features.tolist() != thin.features.tolist()
    ages = thin.features[:, [column_of_age(), SCHEMA.names.index(f"retrieval_{NOISE}_score")]]
    left = label_rows(replace(view, without=Without.of_source(ALONE)), 10, seed=3)
    kept = left.features[:, [column_of_age(), SCHEMA.names.index(f"retrieval_{NOISE}_score")]]
    shared = {tuple(row) for row in ages.tolist()} & {tuple(row) for row in kept.tolist()}
    assert len(shared) >= 0.6 * len(ages), "only what the source alone carried gave way"


def test_pages_of_another_schema_are_refused(test_pages: PageTable) -> None:
    narrow = replace(test_pages, features=test_pages.features[:, 1:])
    with pytest.raises(SchemaMismatch, match="make the pages again"):
        judge(narrow, test_pages, made_items(), PARAMS, about=ABOUT, say=lambda _: None)


def test_pages_that_nothing_carries_are_refused(test_pages: PageTable) -> None:
    empty = replace(test_pages, ranks=np.zeros_like(test_pages.ranks))
    with pytest.raises(ConfigurationError, match="no source carries"):
        judge(made_pages(120, seed=1), empty, made_items(), PARAMS, about=ABOUT, say=lambda _: None)


def test_facts_and_peers_of_others_are_refused(test_pages: PageTable) -> None:
    few = replace(made_items(), popularity=np.ones(7))
    with pytest.raises(ConfigurationError, match="facts of 7 items"):
        judge(test_pages, test_pages, few, PARAMS, about=ABOUT)
    short = [Peer("short", np.zeros((3, 20), np.int32))]
    with pytest.raises(ConfigurationError, match="short has 3 lists for 240"):
        judge(test_pages, test_pages, made_items(), PARAMS, about=ABOUT, peers=short)


def test_the_report_is_read_back_as_it_was(report: Report, tmp_path: Path) -> None:
    write_json(report, tmp_path / "out/report.json")
    assert read_json(tmp_path / "out/report.json") == report
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(ConfigurationError, match="measure again"):
        read_json(tmp_path / "other.json")
    with pytest.raises(ConfigurationError, match="is not there"):
        read_json(tmp_path / "none.json")


class _Text(HTMLParser):
    """The text of a page; notes tags that are not closed."""

    VOID = frozenset({"meta", "br", "line", "rect", "circle"})

    def __init__(self) -> None:
        super().__init__()
        self.text: list[str] = []
        self.open: list[str] = []
        self.external: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.external += [value or "" for name, value in attrs if name in {"src", "href"}]

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_page_says_what_the_json_says(report: Report, tmp_path: Path) -> None:
    write_page(report, tmp_path / "report.html")
    page = _Text()
    page.feed((tmp_path / "report.html").read_text(encoding="utf-8"))
    text = " ".join(page.text)
    assert not page.open
    assert not page.external, "one file, nothing beside it"
    for said in (ABOUT.title, ABOUT.protocol, ABOUT.command, *ABOUT.fitted, *ABOUT.files.values(), '"als_decay": 0.7'):
        assert said in text
    for method in report.methods:
        assert method.name in text
        for interval in method.metrics.values():
            assert f"{interval.estimate:.4f} ({interval.low:.4f} to {interval.high:.4f})" in text
    assert report.ablation is not None
    for row in report.ablation.rows:
        assert f"{row.loss.estimate:.4f} ({row.loss.low:.4f} to {row.loss.high:.4f})" in text
    for part in report.parts:
        assert part.name in text
    assert all(re.search(rf"\b{one.milliseconds:.3f}\b", text) for one in report.serving_cost)


def test_probabilities_are_near_what_comes_true(report: Report, test_pages: PageTable) -> None:
    assert report.calibration is not None
    assert sum(one.rows for one in report.calibration.bins) == len(test_pages.label)
    assert report.calibration.expected_error < 0.01
    share = float(test_pages.positive.mean())
    assert report.calibration.brier < share * (1 - share), "better than the same probability for all"


def test_scores_that_say_nothing_have_one_probability(test_pages: PageTable) -> None:
    view = View.whole(test_pages)
    found = measure_calibration(view, view, lambda rows: np.zeros(len(rows), np.float32))
    share = float(test_pages.positive.mean())
    assert [(one.rows, one.said, one.came) for one in found.bins] == [
        pytest.approx((len(test_pages.label), share, share))
    ]
    assert found.brier == pytest.approx(share * (1 - share))


def test_names_in_the_json_are_stable(report: Report) -> None:
    raw = msgspec.json.decode(msgspec.json.encode(report))
    assert set(raw) == {
        "about", "schema", "metric", "queries", "users", "label_queries", "serves", "best_source", "methods",
        "candidate_recall", "segments", "ablation", "serving_cost", "calibration", "parts",
    }  # fmt: skip
    assert set(raw["methods"][0]) == {"name", "kind", "metrics", "against_best", "serving_against", "lists"}
    assert {one.name for one in fields(type(report.methods[0].lists))} == set(raw["methods"][0]["lists"])
    assert ITEMS == 80
