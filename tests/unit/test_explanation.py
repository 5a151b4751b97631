from __future__ import annotations

import numpy as np
import pytest

from shared.features.definitions import Retrieval
from shared.ranking.explanation import FILLER, PERSONAL_FIRST, TEMPLATES, carrying_source, reason


def ranks(**by_source: int) -> np.ndarray:
    return np.array([by_source.get(name.value, 0) for name in Retrieval], dtype=np.int16)


def test_every_source_can_speak() -> None:
    assert set(TEMPLATES) == set(Retrieval) == set(PERSONAL_FIRST)
    assert len(PERSONAL_FIRST) == len(Retrieval)
    assert len(set(TEMPLATES.values())) == len(TEMPLATES)


def test_the_best_rank_speaks_and_the_more_personal_on_a_tie() -> None:
    assert carrying_source(ranks(popular=1, similar=2)) is Retrieval.POPULAR
    assert carrying_source(ranks(popular=2, als=2, similar=2)) is Retrieval.SIMILAR
    assert carrying_source(ranks(popular=3, arrivals=3)) is Retrieval.ARRIVALS
    assert carrying_source(ranks()) is None


def test_what_she_touched_herself_is_said_first() -> None:
    assert carrying_source(ranks(popular=1, similar=2, repeat=9)) is Retrieval.REPEAT


@pytest.mark.parametrize("source", list(Retrieval))
def test_a_sentence_is_whole_whatever_is_known(source: Retrieval) -> None:
    for seed in ("A {curly} cup", None, ""):
        for category in ("Kitchen {0}", ""):
            said = reason(source, seed, category)
            assert said
            assert "{seed}" not in said
            assert "{category}" not in said
            assert "None" not in said


def test_sentences_name_seed_and_category() -> None:
    assert reason(Retrieval.SIMILAR, "the red cup", "Cups") == "because you viewed the red cup"
    assert reason(Retrieval.CATEGORY, None, "Cups") == "popular in Cups, which you like"
    assert reason(Retrieval.BOUGHT_TOGETHER, None, "Cups") == TEMPLATES[Retrieval.ALS]
    assert reason(None, "the red cup", "Cups") == FILLER
