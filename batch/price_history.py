"""What an item's catalogue price was, as far as the prices that were paid tell."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import pandas as pd


def daily_price_changes(sales: pd.DataFrame) -> list[tuple[Any, Any, int, int]]:
    """(item, day, price_cents, at of its last sale that day) for each day on which an item's price became another.

    `sales` has item, day (of the shop's wall clock), price_cents and at (epoch ms). The first price in time is the
    one an item begins with; a later day changes it when that day's modal price is another. Of equally frequent prices
    the one it has stands, else the lowest counts.
    """
    prices_of = sales.groupby("item")["price_cents"].agg(["min", "max"])
    # Most items never change their price, and a day of each of them would be an entry of the tables below.
    sales = sales[sales["item"].isin(prices_of.index[prices_of["min"] != prices_of["max"]])]
    counts = sales.groupby(["item", "day", "price_cents"], sort=True).size().reset_index(name="lines")
    last_at = sales.groupby(["item", "day"])["at"].max().to_dict()
    first = sales.sort_values("at", kind="stable").drop_duplicates("item")
    current: dict[Hashable, int] = dict(zip(first["item"], first["price_cents"].tolist(), strict=True))
    first_day: dict[Hashable, Any] = dict(zip(first["item"], first["day"], strict=True))
    by_day: dict[tuple[Any, Any], dict[int, int]] = {}
    columns = (counts[name].tolist() for name in ("item", "day", "price_cents", "lines"))
    for item, day, price, count in zip(*columns, strict=True):
        by_day.setdefault((item, day), {})[price] = count
    found: list[tuple[Any, Any, int, int]] = []
    for (item, day), prices in by_day.items():
        most = max(prices.values())
        if day == first_day[item] or prices.get(current[item]) == most:
            continue
        current[item] = min(price for price, count in prices.items() if count == most)
        found.append((item, day, current[item], int(last_at[item, day])))
    return found
