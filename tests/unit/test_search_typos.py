"""One edit away: each kind of edit, which words are spared, and the same as a brute-force distance says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.search.typos import Vocabulary
from tests.unit.builders import MODEST

WORDS = ["teapot", "teapots", "table", "lamp", "lamps", "cup", "cups", "mp3s5", "headphones"]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("teapt", ["teapot"]),
        ("teaapot", ["teapot"]),
        ("teabot", ["teapot"]),
        ("tepaot", ["teapot"]),
        ("etapot", ["teapot"]),
        ("teapost", ["teapot", "teapots"]),
        ("headphnoes", ["headphones"]),
        ("tabel", ["table"]),
        ("lampd", ["lamp", "lamps"]),
        ("lams", ["lamps"]),
        ("laps", ["lamps"]),
        ("teaptso", []),
        ("tpeaot", []),
        ("cuos", []),
        ("mp3s4", []),
        ("x" * 5000, []),
        ("", []),
    ],
)
def test_words_of_five_letters_forgive_one_edit(typed: str, meant: list[str]) -> None:
    assert Vocabulary(WORDS).neighbours(typed) == meant


def edits(word: str, letters: str) -> set[str]:
    """Everything one edit away, written out."""
    splits = [(word[:place], word[place:]) for place in range(len(word) + 1)]
    deleted = {left + right[1:] for left, right in splits if right}
    swapped = {left + right[1] + right[0] + right[2:] for left, right in splits if len(right) > 1}
    replaced = {left + letter + right[1:] for left, right in splits if right for letter in letters}
    inserted = {left + letter + right for left, right in splits for letter in letters}
    return (deleted | swapped | replaced | inserted) - {word}


@MODEST
@given(st.lists(st.text("abc", min_size=1, max_size=7), max_size=40), st.text("abc", min_size=1, max_size=7))
def test_neighbours_are_those_that_one_edit_makes(words: list[str], typed: str) -> None:
    reachable = edits(typed, "abc")
    wanted = {word for word in words if word in reachable and max(len(word), len(typed)) >= 5}
    wanted = {word for word in wanted if min(len(word), len(typed)) >= 4}
    assert Vocabulary(set(words)).neighbours(typed) == sorted(wanted)
