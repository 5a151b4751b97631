"""What may be shown, and how much of the same: rules that no score can overrule."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from shared.events import EventType, Preferences
from shared.features.aggregations import DAY_MS
from shared.features.items import ItemTable
from shared.features.views import Rows, UserView

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Eligibility:
    """bool[n_items] of what may be shown, and of what each rule took away that none before it had taken."""

    allowed: Mask
    taken: dict[str, Mask] = field(default_factory=dict)

    @property
    def removed(self) -> dict[str, int]:
        """How many items each rule took away."""
        return {rule: int(np.count_nonzero(mask)) for rule, mask in self.taken.items()}

    def without(self, rule: str, forbidden: Mask) -> Eligibility:
        """Take away what `forbidden` marks, on account of `rule`."""
        mask = self.allowed & forbidden
        taken = {**self.taken, rule: mask} if mask.any() else self.taken
        return Eligibility(self.allowed & ~forbidden, taken)


def eligibility(
    table: ItemTable,
    rows: Rows,
    user: UserView | None = None,
    *,
    excluded: Iterable[int] = (),
    category: str | None = None,
    bought_window_days: int = 0,
    preferences: Preferences | None = None,
) -> Eligibility:
    """Apply all rules: every path that shows items goes through here.

    Args:
        table: the live items.
        rows: int64[n_items], the table's rows that are in question, such as those of a release's items.
        user: whose purchases within `bought_window_days` are withheld; None where the path knows no behaviour.
        excluded: table rows the request does not want.
        category: only items with this name on their category path.
        bought_window_days: 0 withholds nothing.
        preferences: hidden items, categories, brands and a price range.
    """
    chosen = Eligibility(np.ones(len(rows), dtype=np.bool_)).without("unavailable", ~table.available[rows])
    if category is not None:
        chosen = chosen.without("category", ~table.in_category(category, rows))
    excluded_rows = np.fromiter(excluded, dtype=np.int64)
    if len(excluded_rows):
        chosen = chosen.without("excluded", np.isin(rows, excluded_rows))
    if user is not None and bought_window_days:
        bought, at = user.lists[EventType.PURCHASE]
        recent = bought[at > user.as_of - bought_window_days * DAY_MS]
        if len(recent):
            chosen = chosen.without("bought", np.isin(rows, recent))
    if preferences is not None:
        chosen = chosen.without("preferences", _unwanted(table, rows, preferences))
    return chosen


def diversify(
    order: NDArray[np.int64], category: NDArray[np.int64], limit: int, max_per_category: int
) -> NDArray[np.int64]:
    """The first `limit` of `order` with at most so many of one category; what was passed over fills a short page.

    Args:
        order: positions, best first.
        category: int64 code of each position; unknown (-1) counts as a category of its own each.
        limit: length of the page.
        max_per_category: of one page of 20, pages of another length scale it; 0 sets no bound.
    """
    if not max_per_category:
        return order[:limit]
    cap = max(1, round(max_per_category * limit / 20))
    codes = category[order]
    grouped = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.r_[True, codes[grouped][1:] != codes[grouped][:-1]])
    lengths = np.diff(np.r_[starts, len(codes)])
    seen_before = np.empty(len(codes), dtype=np.int64)
    seen_before[grouped] = np.arange(len(codes)) - np.repeat(starts, lengths)
    kept = (seen_before < cap) | (codes < 0)
    page = order[kept][:limit]
    if len(page) < limit:
        page = np.concatenate([page, order[~kept][: limit - len(page)]])
    return page


def _unwanted(table: ItemTable, rows: Rows, wanted: Preferences) -> Mask:
    hidden_rows = [row for row in map(table.row_of_id, wanted.hidden_items) if row is not None]
    unwanted = np.isin(rows, np.array(hidden_rows, dtype=np.int64))
    if wanted.hidden_categories:
        unwanted |= table.in_categories(wanted.hidden_categories, rows)
    if wanted.hidden_brands:
        codes = [code for code in map(table.code, wanted.hidden_brands) if code >= 0]
        unwanted |= np.isin(table.brand[rows], np.array(codes, dtype=np.int64))
    if wanted.min_price_cents is not None:
        unwanted |= table.price_cents[rows] < wanted.min_price_cents
    if wanted.max_price_cents is not None:
        unwanted |= table.price_cents[rows] > wanted.max_price_cents
    return np.asarray(unwanted)
