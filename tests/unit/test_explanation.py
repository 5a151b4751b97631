from __future__ import annotations

import sys
from enum import StrEnum

import numpy as np
import pytest

from shared.features import definitions
from shared.features.definitions import Retrieval
from shared.ranking import explanation
from shared.ranking.explanation import FILLER, PERSONAL_FIRST, SEEDLESS, TEMPLATES, carrying_source, reason


def ranks(**by_source: int) -> np.ndarray:
    return np.array([by_source.get(name.value, 0) for name in Retrieval], dtype=np.int16)


def test_every_source_can_speak_in_its_own_words() -> None:
    assert set(TEMPLATES) == set(Retrieval) == set(PERSONAL_FIRST)
    assert len(set(TEMPLATES.values())) == len(TEMPLATES)


def test_a_source_without_a_sentence_stops_the_import(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {name.name: name.value for name in Retrieval}
    monkeypatch.setattr(definitions, "Retrieval", StrEnum("Retrieval", names | {"ORACLE": "oracle"}))
    monkeypatch.delitem(sys.modules, explanation.__name__)
    with pytest.raises(TypeError, match="oracle"):
        __import__(explanation.__name__)


def test_the_best_rank_speaks_and_the_more_personal_on_a_tie() -> None:
    assert carrying_source(ranks(popular=1, cooccurrence=2)) is Retrieval.POPULAR
    assert carrying_source(ranks(popular=2, als=2, cooccurrence=2)) is Retrieval.COOCCURRENCE
    assert carrying_source(ranks(popular=3, arrivals=3)) is Retrieval.ARRIVALS
    assert carrying_source(ranks()) is None


def test_what_she_touched_herself_is_said_first() -> None:
    assert carrying_source(ranks(popular=1, cooccurrence=2, repeat=9)) is Retrieval.REPEAT


@pytest.mark.parametrize("source", [*Retrieval, None])
def test_a_sentence_is_whole_whatever_is_known(source: Retrieval | None) -> None:
    for seed in ("A {curly} cup", None, ""):
        for category in ("Kitchen {0}", ""):
            said = reason(source, seed, category)
            assert said
            assert "{seed}" not in said
            assert "{category}" not in said
            assert "None" not in said
            assert "  " not in said


@pytest.mark.parametrize("source", [name for name in Retrieval if "{seed}" in TEMPLATES[name]])
def test_sentences_of_neighbour_lists_name_the_seed(source: Retrieval) -> None:
    assert "the red cup" in reason(source, "the red cup", "Cups")
    assert reason(source, None, "Cups") == SEEDLESS


def test_what_is_popular_names_the_category() -> None:
    assert reason(Retrieval.POPULAR, None, "Cups") == "popular in Cups right now"
    assert reason(Retrieval.POPULAR, None, "") == FILLER
    assert reason(None, "the red cup", "Cups") == FILLER
