"""Splits by hand: what each protocol calls known, asked and positive, and that nothing asked is known."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from batch.evaluation.hold_out import hold_out
from batch.evaluation.phases import Known, Phase, Queries, Split
from batch.evaluation.split import (
    AskedPrefixes,
    OrderedRows,
    Pairs,
    given_split,
    leave_last_out,
    next_basket,
    next_in_session,
    number,
)
from shared.errors import ConfigurationError
from shared.features.aggregations import DAY_MS, MINUTE_MS

NOTHING = pa.array([], pa.large_string())


def words(*values: str) -> pa.Array:
    return pa.array(values, pa.large_string())


def ordered(*rows: tuple[str, int, str]) -> OrderedRows:
    owners, places, items = zip(*rows, strict=True)
    return OrderedRows(words(*owners), np.array(places, np.int64), words(*items))


def named(split: Split, items: NDArray[np.int32]) -> list[str]:
    return [split.names[item] for item in items]


def asked(split: Split, queries: Queries) -> dict[tuple[str, ...], set[str]]:
    """Histories, oldest first, to positives."""
    return {
        tuple(named(split, queries.history[queries.starts[q] : queries.starts[q + 1]])): set(
            named(split, queries.positives[queries.positive_starts[q] : queries.positive_starts[q + 1]])
        )
        for q in range(len(queries))
    }


def known(split: Split, rows: Known) -> list[list[str]]:
    """Items of each user, oldest first."""
    return [named(split, rows.item[rows.user == user]) for user in np.unique(rows.user)]


def newest_ages(queries: Queries) -> list[int]:
    return list(map(int, queries.age_ms[queries.starts[1:] - 1]))


LETTERS = ordered(
    ("u", 2, "c"), ("u", 0, "a"), ("u", 1, "b"), ("u", 3, "d"),
    ("v", 0, "b"), ("v", 1, "a"),
    ("w", 0, "c"),
    ("x", 10, "d"), ("x", 20, "b"), ("x", 30, "c"),
)  # fmt: skip


def test_the_last_item_is_the_test_and_the_one_before_it_the_label() -> None:
    split = leave_last_out(LETTERS, words("e"), seed=0, refit=True)
    assert asked(split, split.test.queries) == {("a", "b", "c"): {"d"}, ("b",): {"a"}, ("d", "b"): {"c"}}
    assert asked(split, split.label.queries) == {("a", "b"): {"c"}, ("d",): {"b"}}
    assert sorted(known(split, split.label.known)) == [["a", "b"], ["d"]]
    assert sorted(known(split, split.test.known)) == [["a", "b", "c"], ["b"], ["d", "b"]]
    assert sorted(split.names) == ["a", "b", "c", "d", "e"]
    assert split.masked
    assert set(newest_ages(split.test.queries)) == {DAY_MS}
    newest = {user: split.test.known.age_ms[split.test.known.user == user].min() for user in split.test.known.user}
    assert set(newest.values()) == {DAY_MS}


def test_without_refit_sources_stay_without_the_last_two_and_histories_do_not() -> None:
    split = leave_last_out(LETTERS, NOTHING, seed=0, refit=False)
    assert split.test.known is split.label.known
    assert ("a", "b", "c") in asked(split, split.test.queries)


def test_a_test_item_changes_nothing_that_is_known_or_asked_of_the_rankers() -> None:
    before = leave_last_out(LETTERS, NOTHING, seed=3, refit=True)
    swapped = ordered(
        *[
            (owner, place, {("u", 3): "a", ("x", 30): "a", ("v", 1): "d"}.get((owner, place), item))
            for owner, place, item in zip(
                LETTERS.owner.to_pylist(), LETTERS.position.tolist(), LETTERS.item.to_pylist(), strict=True
            )
        ]
    )
    after = leave_last_out(swapped, NOTHING, seed=3, refit=True)
    assert asked(before, before.test.queries) != asked(after, after.test.queries)
    assert_same(before.label, after.label)
    for name in ("user", "item", "age_ms", "session"):
        assert np.array_equal(getattr(before.test.known, name), getattr(after.test.known, name)), name


def assert_same(one: Phase, two: Phase) -> None:
    for part, other in ((one.known, two.known), (one.queries, two.queries)):
        for name in part.__slots__:
            assert np.array_equal(getattr(part, name), getattr(other, name)), name


def test_other_ids_give_the_same_numbers() -> None:
    renamed = OrderedRows(
        words(*(f"user {value}" for value in LETTERS.owner.to_pylist())),
        LETTERS.position,
        words(*({"a": "zz", "b": "0", "c": "m", "d": "A"}[value] for value in LETTERS.item.to_pylist())),
    )
    one = leave_last_out(LETTERS, NOTHING, seed=1, refit=True)
    two = leave_last_out(renamed, NOTHING, seed=1, refit=True)
    assert_same(one.label, two.label)
    assert_same(one.test, two.test)


def test_numbers_do_not_follow_the_order_of_appearance() -> None:
    codes = number((0, 1), words(*(f"{n:03d}" for n in range(300)))).codes[0]
    assert sorted(codes.tolist()) == list(range(300))
    assert abs(np.corrcoef(codes, np.arange(300))[0, 1]) < 0.2
    assert not np.array_equal(codes, number((1, 1), words(*(f"{n:03d}" for n in range(300)))).codes[0])


def test_given_pairs_hold_out_a_share_of_each_user_and_keep_the_published_test() -> None:
    train = Pairs(words(*"uuuuuuuuuuvvw"), words(*"abcdefghijabc"))
    test = Pairs(words(*"uuvz"), words(*"klca"))
    split = given_split(train, test, NOTHING, seed=5, refit=True)
    tests = {frozenset(history): found for history, found in asked(split, split.test.queries).items()}
    assert tests == {frozenset("abcdefghij"): {"k", "l"}, frozenset("ab"): {"c"}}
    ((history, found),) = asked(split, split.label.queries).items()
    assert len(history) == 8
    assert len(found) == 2
    assert set(history) | found == set("abcdefghij")
    assert sorted(map(len, known(split, split.label.known))) == [1, 2, 8]
    assert sorted(map(len, known(split, split.test.known))) == [1, 2, 10]
    assert set(split.test.queries.age_ms.tolist()) == {DAY_MS}
    assert split.masked


def test_labels_hang_together_as_is_asked_for() -> None:
    """Each of 200 users has ten items of one town and ten of another, out of sixty towns of 15 items."""
    generator = np.random.default_rng(0)
    rows = [
        (f"u{user}", f"{town}-{n}")
        for user in range(200)
        for town in generator.choice(60, 2, replace=False)
        for n in generator.choice(15, 10, replace=False)
    ]
    users, items = zip(*rows, strict=True)
    train, test = Pairs(words(*users), words(*items)), Pairs(words("u0"), words("0-1"))

    def together(cohesion: float) -> float:
        """The mean share of a user's labels that lie in the town of most of them."""
        split = given_split(train, test, NOTHING, seed=1, refit=True, cohesion=cohesion)
        found = list(asked(split, split.label.queries).values())
        assert {len(labels) for labels in found} == {4}
        assert len(split.label.known) == 200 * 16
        towns = [[name.split("-")[0] for name in labels] for labels in found]
        return float(np.mean([max(map(one.count, one)) / len(one) for one in towns]))

    assert together(0.0) < 0.75
    assert together(0.0) < together(4.0) < together(64.0)
    assert together(64.0) > 0.8


def test_the_smaller_part_of_a_taste_is_held_out_about_as_often() -> None:
    """Each of 300 users has 15 items of one town and 3 of another: to lie with most or few of hers decides nothing."""
    generator = np.random.default_rng(0)
    pairs = np.array(
        [
            (user, town * 20 + n)
            for user in range(300)
            for town, size in zip(generator.choice(30, 2, replace=False), (15, 3), strict=True)
            for n in generator.choice(20, size, replace=False)
        ],
        np.int32,
    )
    smaller = np.arange(len(pairs)) % 18 >= 15
    held = hold_out(pairs, 64.0, np.random.default_rng(1))
    assert np.count_nonzero(held) == 300 * 4
    assert np.mean(smaller) < np.mean(smaller[held]) < 2 * np.mean(smaller)


@pytest.mark.parametrize("cohesion", [0.0, 16.0, -16.0, 1e9])
def test_few_pairs_are_held_out_whatever_the_cohesion(cohesion: float) -> None:
    generator = np.random.default_rng(0)
    assert hold_out(np.zeros((0, 2), np.int32), cohesion, generator).tolist() == []
    assert hold_out(np.array([[0, 0], [2, 0]], np.int32), cohesion, generator).tolist() == [False, False]
    pairs = np.array([[0, 0], [0, 1], [0, 2], [3, 0], [3, 1], [3, 7]], np.int32)
    held = hold_out(pairs, cohesion, generator)
    assert [np.count_nonzero(held[:3]), np.count_nonzero(held[3:])] == [1, 1]


def test_test_pairs_change_nothing_before_the_test() -> None:
    train = Pairs(words(*"uuuuuvvvvv"), words(*"abcdeabcde"))
    one = given_split(train, Pairs(words("u", "v"), words("f", "g")), NOTHING, seed=0, refit=True)
    two = given_split(train, Pairs(words("u", "v"), words("g", "f")), NOTHING, seed=0, refit=True)
    assert_same(one.label, two.label)
    assert np.array_equal(one.test.known.item, two.test.known.item)


SESSIONS = ordered(
    *[(f"s{session}", place, item) for session in range(10) for place, item in enumerate("abca" if session else "dd")]
)
PREFIXES = AskedPrefixes(np.array([2, 1, 1], np.int64), words("a", "b", "a", "c"), words("c", "b", "a"))


def test_prefixes_of_the_last_sessions_are_labels_and_their_sessions_unknown() -> None:
    split = next_in_session(SESSIONS, PREFIXES, NOTHING, seed=0, refit=True, spread_days=10)
    assert asked(split, split.label.queries) == {("a",): {"b"}, ("a", "b"): {"c"}, ("a", "b", "c"): {"a"}}
    assert len(known(split, split.label.known)) == 9
    assert len(known(split, split.test.known)) == 10
    assert split.label.queries.age_ms.tolist() == [
        MINUTE_MS,
        2 * MINUTE_MS,
        MINUTE_MS,
        *(n * MINUTE_MS for n in (3, 2, 1)),
    ]
    assert not split.masked
    ages = split.test.known.age_ms
    assert ages.min() == DAY_MS
    first = ages[split.test.known.user == 0]
    assert first.tolist() == [10 * DAY_MS + MINUTE_MS, 10 * DAY_MS]


def test_rows_of_one_session_are_one_user_and_no_prefix_tells_of_another() -> None:
    split = next_in_session(SESSIONS, PREFIXES, NOTHING, seed=0, refit=True, spread_days=10)
    queries = split.test.queries
    assert queries.user[0] == queries.user[1] != queries.user[2]
    assert queries.user.min() >= 10
    bounds = zip(queries.starts[:-1], queries.starts[1:], strict=True)
    assert [named(split, queries.history[low:high]) for low, high in bounds] == [["a", "b"], ["a"], ["c"]]
    # The longer prefix holds the shorter one's target: what is known must hold neither.
    assert len(split.test.known) == len(SESSIONS.position)


def test_labels_of_sessions_are_as_long_as_the_prefixes_asked() -> None:
    long = AskedPrefixes(np.array([2, 3], np.int64), words(*"ababc"), words("c", "a"))
    split = next_in_session(SESSIONS, long, NOTHING, seed=0, refit=True, spread_days=10)
    assert set(map(len, asked(split, split.label.queries))) == {2, 3}


def test_the_next_basket_is_the_test_and_the_last_one_of_history_the_label() -> None:
    rows = ordered(
        ("u", 1, "a"), ("u", 1, "b"), ("u", 5, "a"), ("u", 5, "c"), ("u", 9, "d"), ("u", 9, "a"), ("u", 12, "b"),
        ("v", 1, "c"), ("v", 2, "b"),
        ("w", 3, "b"),
    )  # fmt: skip
    future = np.array([0, 0, 0, 0, 1, 1, 1, 0, 1, 0], np.bool_)
    split = next_basket(rows, future, NOTHING, seed=0, refit=True)
    tests = {tuple(sorted(history)): found for history, found in asked(split, split.test.queries).items()}
    assert tests == {("a", "a", "b", "c"): {"a", "d"}, ("c",): {"b"}}
    labels = {tuple(sorted(history)): found for history, found in asked(split, split.label.queries).items()}
    assert labels == {("a", "b"): {"a", "c"}}
    u = split.test.queries
    (row,) = np.flatnonzero(np.diff(u.starts) == 4)
    assert u.age_ms[u.starts[row] : u.starts[row + 1]].tolist() == [2 * DAY_MS, 2 * DAY_MS, DAY_MS, DAY_MS]
    assert sorted(map(sorted, known(split, split.label.known))) == [["a", "b"]]
    assert sorted(map(sorted, known(split, split.test.known))) == [["a", "a", "b", "c"], ["b"], ["c"]]
    assert not split.masked
    basket_of = dict(zip(split.test.known.age_ms.tolist(), split.test.known.session.tolist(), strict=True))
    assert len(set(basket_of.values())) == len(basket_of)


def test_too_little_to_split_is_said() -> None:
    with pytest.raises(ConfigurationError, match="nothing to test on"):
        next_basket(LETTERS, np.zeros(10, np.bool_), NOTHING, seed=0, refit=True)
    with pytest.raises(ConfigurationError, match="3 pairs"):
        given_split(Pairs(words("u"), words("a")), Pairs(words("u"), words("b")), NOTHING, seed=0, refit=True)
    with pytest.raises(ConfigurationError, match="too few"):
        next_in_session(ordered(("s", 0, "a")), PREFIXES, NOTHING, seed=0, refit=True, spread_days=1)
    empty = AskedPrefixes(np.array([0], np.int64), NOTHING, words("a"))
    with pytest.raises(ConfigurationError, match="at least one item"):
        next_in_session(SESSIONS, empty, NOTHING, seed=0, refit=True, spread_days=1)


def test_a_sample_is_no_stretch_of_the_file() -> None:
    rows = ordered(*[(f"u{user}", place, f"i{user}-{place}") for user in range(400) for place in range(3)])
    split = leave_last_out(rows, NOTHING, seed=0, refit=True)
    drawn = named(split, split.test.queries.sampled(100, 0).positives)
    owners = [int(name[1:].split("-")[0]) for name in drawn]
    assert max(owners) > 350
    assert min(owners) < 50


def test_a_sample_apart_meets_no_page_that_is_learnt_from() -> None:
    rows = ordered(*[(f"u{user}", place, f"i{place}") for user in range(40) for place in range(4)])
    queries = leave_last_out(rows, NOTHING, seed=0, refit=True).label.queries
    learnt, tried = queries.sampled(25, 7), queries.sampled_apart(10, 7, 25)
    assert len(learnt) == 25
    assert len(tried) == 10
    assert not set(learnt.user) & set(tried.user)
    assert len(queries.sampled_apart(30, 7, 25)) == 30
    assert len(queries.sampled_apart(30, 7, 100)) == 30
