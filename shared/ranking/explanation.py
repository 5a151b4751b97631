"""The sentences that tell a shopper why: one template a source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shared.features.definitions import Retrieval

TEMPLATES: Final[Mapping[Retrieval, str]] = {
    Retrieval.COOCCURRENCE: "because others went on to this after {seed}",
    Retrieval.TRANSITIONS: "often next after {seed}",
    Retrieval.ATTRIBUTES: "because it is like {seed}",
    Retrieval.REPEAT: "because you looked at it before",
    Retrieval.ALS: "because shoppers with your taste like it",
    Retrieval.ARRIVALS: "new in the shop",
    Retrieval.POPULAR: "popular in {category} right now",
}
"""The more personal a source, the earlier."""
SEEDLESS: Final = TEMPLATES[Retrieval.ALS]
FILLER: Final = "popular in this shop"
EXPLORED: Final = "new: we would like to know what you think of it"

PERSONAL_FIRST: Final = tuple(TEMPLATES)
_COLUMN: Final = {name: column for column, name in enumerate(Retrieval)}

if _SPEECHLESS := [str(name) for name in Retrieval if name not in TEMPLATES]:
    raise TypeError(f"sources without a sentence in {__name__}.TEMPLATES: {', '.join(_SPEECHLESS)}")


def carrying_source(ranks: NDArray[np.int16]) -> Retrieval | None:
    """The source that speaks for a candidate, by its ranks (int16[S], 0: not carried).

    What the shopper touched herself is said first; else the best rank speaks, the more personal on a tie.
    """
    if ranks[_COLUMN[Retrieval.REPEAT]] > 0:
        return Retrieval.REPEAT
    carried = [name for name in PERSONAL_FIRST if ranks[_COLUMN[name]] > 0]
    return min(carried, key=lambda name: int(ranks[_COLUMN[name]]), default=None)


def reason(source: Retrieval | None, seed_title: str | None, category: str) -> str:
    """The sentence; a template whose seed or category is not known falls back to a general one."""
    if source is None:
        return FILLER
    template = TEMPLATES[source]
    if "{seed}" in template and not seed_title:
        return SEEDLESS
    if "{category}" in template and not category:
        return FILLER
    return template.format(seed=seed_title, category=category)
