"""What a shopper's action with a candidate is worth as a label."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from shared.events import EventType

LABELS: Final[Mapping[EventType, int]] = {EventType.VIEW: 1, EventType.CART: 2, EventType.PURCHASE: 3}
"""The grade of what a shopper did with an item; its strongest action counts."""
