"""Everything a round of visits happens in: one block's shoppers and memory, the shop on that day, the random stream."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from batch.synthetic_shop.catalog import Catalog
from batch.synthetic_shop.market import MarketDay
from batch.synthetic_shop.memory import Memory
from batch.synthetic_shop.shoppers import Shoppers


@dataclass(frozen=True, slots=True)
class Scene:
    """One block on one day; `memory` and `random` move on as visits are drawn."""

    shoppers: Shoppers
    memory: Memory
    catalog: Catalog
    market: MarketDay
    random: np.random.Generator
