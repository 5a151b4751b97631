"""Device and surface: from the request, or in training from the context of the instant's event."""

from __future__ import annotations

import math
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from feature_jobs.instants import instants_of
from shared.features import definitions
from shared.features.definitions import DEVICES, FEATURES, SURFACES
from shared.features.derivations import code_of
from shared.features.replay import LoggedEvent
from shared.features.views import RequestView
from tests.unit.builders import NOW, UTC, event


@pytest.mark.parametrize(
    ("word", "code"), [("first", 2), ("SECOND", 3), ("third", 1), ("", 1), ("First", 2), (None, math.nan)]
)
def test_known_words_have_codes_unknown_ones_share_one(word: str | None, code: float) -> None:
    coded = code_of(lambda request: request.device, ("first", "second"))
    assert coded(RequestView(NOW, UTC, word, "second")) == pytest.approx(code, nan_ok=True)


@pytest.mark.parametrize("words", [DEVICES, SURFACES])
def test_a_vocabulary_is_in_the_form_that_words_are_compared_in(words: tuple[str, ...]) -> None:
    assert [word.casefold() for word in words] == list(words)
    assert len(set(words)) == len(words)
    assert words in [one.vocabulary for one in FEATURES]


@pytest.mark.parametrize("words", [DEVICES, SURFACES])
def test_the_words_are_those_that_users_of_the_api_are_told(words: tuple[str, ...]) -> None:
    page = Path(definitions.__file__).parents[2] / "docs/api.md"
    assert f"`{'`, `'.join(words)}` |" in page.read_text(encoding="utf-8")


def test_every_coded_feature_says_so() -> None:
    telling = RequestView(NOW, ZoneInfo("Europe/London"), DEVICES[1], SURFACES[2])
    coded = {one.name: one.value(telling) for one in FEATURES if one.vocabulary}
    assert sorted(coded.values()) == [3.0, 4.0]  # type: ignore[type-var]  # values of a request are numbers


def test_an_instant_knows_where_its_event_came_from() -> None:
    contexts = [{"device": "app", "surface": "search", "campaign": "spring"}, {"surface": "cart"}, None]
    session = [
        LoggedEvent(
            "live-1", 0, place, NOW + place, event("purchase", item=f"i{place}", at=NOW + place, context=context)
        )
        for place, context in enumerate(contexts)
    ]
    found = [(one.device, one.surface) for one in instants_of(session, {"purchase"})]
    assert found == [("app", "search"), (None, "cart"), (None, None)]
