"""Recommendation ids: `<release id>.<UUIDv7 as 32 hexadecimal digits>` (RFC 9562), so that an id tells its minute."""

from __future__ import annotations

import re
from typing import Final

PATTERN: Final = r"^[A-Za-z0-9._-]{1,95}\.[0-9a-f]{32}$"
_ID: Final = re.compile(PATTERN)
_TIME_DIGITS: Final = 12
_DRAWN_DIGITS: Final = 8


def recommendation_id(release_id: str, at: int, random_digits: str) -> str:
    """The id of a page made `at` (epoch ms); the 19 last of `random_digits` (32 hexadecimal) make it unique."""
    return f"{release_id}.{at:0{_TIME_DIGITS}x}7{random_digits[_TIME_DIGITS + 1 :]}"


def made_at(identifier: str) -> int | None:
    """When the page was made (epoch ms); None for what is no such id."""
    if _ID.fullmatch(identifier) is None:
        return None
    return int(identifier.rpartition(".")[2][:_TIME_DIGITS], 16)


def is_sampled(identifier: str, share: float) -> bool:
    """Is this page among the `share` that is recorded? Its last digits are the draw."""
    return int(identifier[-_DRAWN_DIGITS:], 16) / 16**_DRAWN_DIGITS < share
