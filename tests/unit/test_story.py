"""What the story claims: its conditions on made-up pages, its verdict, its heroine, and what a prepared folder is."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from local import evaluation_table
from local.casting import Customer, choose_customer
from local.claims import Claims
from local.page_comparison import (
    ascents,
    distinct_scores,
    in_ranker_order,
    mean_sources,
    moves,
    naming,
    percentile,
    personal,
    rank_mass,
    risen,
)
from local.prepared_shop import begin, clear, generated, ingested, is_prepared
from local.shopper import Page, Shown
from shared.errors import ConfigurationError


def shown(item_id: str, rank: int, score: float, *sources: str, reason: str = "") -> Shown:
    return Shown(item_id, f"title of {item_id}", rank, score, sources, reason, "lamps", 100)


def page(*items: Shown) -> Page:
    return Page(items, "r1", "r1.1", None, "0")


def claims() -> Claims:
    return Claims(Console(file=io.StringIO()))


class TestConditions:
    def test_rank_mass_is_the_discount_of_ndcg_over_ranked_items_only(self) -> None:
        assert rank_mass({"a": 1, "b": 3, "c": 2}, ["a", "b", "unranked"]) == pytest.approx(1.0 + 0.5)

    def test_risen_counts_what_climbed_or_came_and_not_what_stayed_fell_or_left(self) -> None:
        before = {"up": 9, "same": 4, "down": 2, "gone": 3}
        after = {"up": 5, "same": 4, "down": 6, "new": 1}
        assert risen(before, after, ["up", "same", "down", "gone", "new", "never"]) == ["new", "up"]

    def test_an_order_by_score_may_start_anew_once_for_the_items_variety_passed_over(self) -> None:
        falling = [shown(str(rank), rank, score) for rank, score in enumerate([5.0, 3.0, 1.0, 2.5, 2.0], 1)]
        assert ascents([item.score for item in falling]) == 1
        assert in_ranker_order(falling)
        assert not in_ranker_order([shown(str(rank), rank, float(rank)) for rank in range(1, 6)])

    def test_a_placement_at_random_does_not_count_against_the_order(self) -> None:
        items = [shown("a", 1, 3.0), shown("b", 2, -9.0, reason="new: we would like to know"), shown("c", 3, 2.0)]
        items += [shown("d", 4, 1.0), shown("e", 5, 2.5)]
        assert in_ranker_order(items)
        assert not in_ranker_order([replace(item, reason="") for item in items])

    def test_a_constant_ranker_has_one_score(self) -> None:
        assert distinct_scores([shown(str(rank), rank, 0.25) for rank in range(20)]) == 1

    def test_personal_items_are_those_a_personal_source_brought(self) -> None:
        items = [shown("a", 1, 1, "popular"), shown("b", 2, 1, "popular", "als"), shown("c", 3, 1, "category")]
        assert [item.item_id for item in personal(items)] == ["b"]
        assert mean_sources(items) == pytest.approx(4 / 3)
        assert mean_sources([]) == 0

    def test_a_reason_names_a_title_and_an_empty_title_is_named_nowhere(self) -> None:
        items = [shown("a", 1, 1, reason="because you viewed Blue Lamp"), shown("b", 2, 1, reason="popular right now")]
        assert [item.item_id for item in naming(items, ["Blue Lamp", ""])] == ["a"]

    def test_moves_tell_where_each_item_stood(self) -> None:
        before = page(shown("a", 1, 3), shown("b", 2, 2))
        after = page(shown("b", 1, 3), shown("c", 2, 2))
        assert [(item.item_id, old) for item, old in moves(before, after)] == [("b", 2), ("c", None)]

    def test_percentiles_are_values_that_occurred(self) -> None:
        took = [float(value) for value in range(1, 101)]
        assert (percentile(took, 0.5), percentile(took, 0.99), percentile(took, 1.0)) == (50, 99, 100)
        assert percentile([7.0], 0.99) == 7
        with pytest.raises(ValueError, match="no values"):
            percentile([], 0.5)


class TestVerdict:
    def test_all_true_is_0_one_false_is_1_and_is_listed(self) -> None:
        made = claims()
        made.check("water is wet", holds=True, evidence="1 of 1")
        assert made.summarise() == 0
        made.check("the moon is cheese", holds=False, evidence="0 of 1")
        assert made.summarise() == 1
        assert [claim.sentence for claim in made.failed] == ["the moon is cheese"]
        assert isinstance(made.console.file, io.StringIO)
        assert made.console.file.getvalue().count("the moon is cheese (0 of 1)") == 2

    def test_a_story_without_claims_fails(self) -> None:
        assert claims().summarise() == 1

    @pytest.mark.parametrize(
        ("whole", "popular", "best", "habit", "failures"),
        [
            (0.30, 0.10, 0.20, 0.25, 0),
            (0.19, 0.10, 0.15, 0.1, 1),
            (0.30, 0.10, 0.29, 0.1, 1),
            (0.30, 0.1, 0.2, 0.31, 1),
        ],
    )
    def test_the_bars_of_the_evaluation(
        self, whole: float, popular: float, best: float, habit: float, failures: int
    ) -> None:
        def method(value: float) -> dict[str, object]:
            interval = {"estimate": value, "low": value, "high": value}
            segment = {"ndcg": interval, "recall": interval}
            return {"all": {**segment, "coverage": 0.5}, "new_users": segment, "light_users": segment}

        values = {"whole": whole, "popular": popular, "als": best, "personal_frequency": habit}
        report = {"queries": 3, "users": 2, "methods": {name: method(value) for name, value in values.items()}}
        made = claims()
        evaluation_table.show(report, made.console)
        evaluation_table.check(report, made, repeats_matter=True)
        assert len(made.made) == 3
        assert len(made.failed) == failures


class TestHeroine:
    def test_she_did_enough_bought_a_few_times_and_was_here_lately(self) -> None:
        now = 100 * 86_400_000
        busy = Customer("busy", 900, 90, now)
        gone = Customer("gone", 100, 9, now - 40 * 86_400_000)
        window_shopper = Customer("window", 120, 0, now)
        right = Customer("right", 60, 4, now - 86_400_000)
        smaller = Customer("smaller", 30, 4, now)
        assert choose_customer([smaller, busy, gone, right, window_shopper]) is right
        assert choose_customer([window_shopper, busy]) is busy

    def test_a_shop_without_customers_has_no_story(self) -> None:
        with pytest.raises(ConfigurationError, match="no customer"):
            choose_customer([])


class TestPreparedFolder:
    def test_begun_is_not_finished(self, tmp_path: Path) -> None:
        source = generated({"users": 10, "seed": None})
        assert source.arguments == ("--users", "10")
        begin(tmp_path, source)
        assert not is_prepared(tmp_path, source)

    def test_other_arguments_or_another_file_are_another_shop(self, tmp_path: Path) -> None:
        orders = tmp_path / "orders.csv"
        orders.write_text("a")
        first = ingested(orders, "online_retail")
        orders.write_text("ab")
        assert ingested(orders, "online_retail").fingerprint != first.fingerprint
        assert generated({"users": 10}).fingerprint != generated({"users": 11}).fingerprint
        with pytest.raises(ConfigurationError, match="no file"):
            ingested(tmp_path / "missing.csv", "online_retail")

    def test_a_fresh_start_removes_what_it_made_and_nothing_else(self, tmp_path: Path) -> None:
        begin(tmp_path, generated({}))
        for name in ("lake", "state", "mlartifacts"):
            (tmp_path / name).mkdir()
        (tmp_path / "notes.txt").write_text("mine")
        (tmp_path / "state" / "server.log").write_text("old")
        clear(tmp_path, forced=False)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["mlartifacts", "notes.txt", "state"]
        assert not list((tmp_path / "state").iterdir())

    def test_a_shop_of_somebody_else_is_removed_on_demand_only(self, tmp_path: Path) -> None:
        (tmp_path / "lake").mkdir()
        with pytest.raises(ConfigurationError, match="did not make"):
            clear(tmp_path, forced=False)
        assert (tmp_path / "lake").exists()
        clear(tmp_path, forced=True)
        assert not (tmp_path / "lake").exists()
