"""Who sees which release: a stable hash of the user against the allocation's weights."""

from __future__ import annotations

import math
from hashlib import blake2b

from shared.errors import ConfigurationError
from shared.ports import Allocation


def allocated_release(allocation: Allocation, user_id: str) -> str:
    """The user's release: the same until salt or weights change, and moving few users when weights move.

    Raises ConfigurationError for an allocation without weight.
    """
    total = sum(weight for _, weight in allocation.releases)
    if not 0 < total < math.inf or any(weight < 0 for _, weight in allocation.releases):
        raise ConfigurationError("an allocation needs weights of at least 0 that sum to a finite number above 0")
    digest = blake2b(f"{allocation.salt}\x00{user_id}".encode(), digest_size=8).digest()
    point = int.from_bytes(digest, "little") / 2**64 * total
    for release_id, weight in allocation.releases:
        if point < weight:
            return release_id
        point -= weight
    return next(release_id for release_id, weight in reversed(allocation.releases) if weight > 0)


def whole(release_id: str, before: Allocation | None) -> Allocation:
    """The allocation that follows `before` and gives everyone this release."""
    version, salt = (0, release_id) if before is None else (before.version, before.salt)
    return Allocation(version + 1, salt, ((release_id, 1.0),))
