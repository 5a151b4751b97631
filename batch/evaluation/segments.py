"""Which test queries are looked at apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shared.ranking.page_table import PageTable

LIGHT_SESSIONS: Final = 3
HISTORY: Final = ((0, 0), (1, 2), (3, 5), (6, 10), (11, 20), (21, None))
"""Distinct items touched before, from and to."""
NEW_TO_USER: Final = "new_to_user"


@dataclass(frozen=True, slots=True)
class QuerySegment:
    """Some test queries, bool[q]."""

    name: str
    meaning: str
    chosen: NDArray[np.bool_]


def query_segments(pages: PageTable) -> list[QuerySegment]:
    """Those that hold some of the queries and not all of them."""
    history, sessions = np.asarray(pages.history), np.asarray(pages.sessions_before)
    found = []
    for low, high in HISTORY:
        name = f"history {low}" if high == low else f"history {low}-{high}" if high is not None else f"history {low}+"
        within = (history >= low) & (history <= (high if high is not None else np.inf))
        found.append(QuerySegment(name, "distinct items the user had acted on before", within))
    found += [
        QuerySegment("new_users", "no earlier session", sessions == 0),
        QuerySegment("light_users", f"fewer than {LIGHT_SESSIONS} earlier sessions", sessions < LIGHT_SESSIONS),
        QuerySegment("known_users", "at least one earlier session", sessions > 0),
    ]
    return [one for one in found if one.chosen.any() and not one.chosen.all()]
