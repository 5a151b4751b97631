"""The exploration slot: now and then one place of a page goes to a new arrival, with its probability on record."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Placement:
    """Put candidate `position` at place `slot` of the page; `propensity` is the probability of just this."""

    position: int
    slot: int
    propensity: float


def explore(
    recommendation_id: str, arrivals: NDArray[np.int64], page_length: int, probability: float
) -> Placement | None:
    """Draw from a generator seeded by the recommendation id: the same id, the same draw.

    Args:
        recommendation_id: of the response.
        arrivals: candidate positions that may be shown and are not on the page.
        page_length: only the lower half of the page is given away.
        probability: in [0, 1], that this page explores at all.
    """
    if not len(arrivals) or page_length < 2 or probability <= 0:
        return None
    seed = int.from_bytes(blake2b(recommendation_id.encode(), digest_size=8).digest(), "little")
    generator = np.random.default_rng(seed)
    if generator.random() >= probability:
        return None
    slots = np.arange(page_length // 2, page_length)
    position, slot = generator.choice(arrivals), generator.choice(slots)
    return Placement(int(position), int(slot), probability / (len(arrivals) * len(slots)))
