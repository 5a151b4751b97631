"""A state version with other layouts than this code's: what an earlier deployment may have folded."""

from __future__ import annotations

from shared.events import EventType
from shared.features.aggregations import Count, Decayed, LastK, Layout
from shared.features.definitions import version_name
from shared.ingest.state_versions import version_of

VIEWED = (EventType.VIEW,)
OLD_USER = Layout([Count(VIEWED), Decayed((EventType.VIEW, EventType.CART), 3_600_000), LastK(VIEWED, 5)])
OLD_ITEM = Layout([Count((EventType.PURCHASE,)), Decayed(VIEWED, 86_400_000)])
OLD = version_of(version_name(OLD_USER, OLD_ITEM), OLD_USER, OLD_ITEM)
OLD_LAYOUTS = {"user": OLD_USER.describe(), "item": OLD_ITEM.describe()}
