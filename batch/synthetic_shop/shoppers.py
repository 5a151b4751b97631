"""The shoppers and their tastes, block by block."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from batch.synthetic_shop.assortment import LEAVES
from batch.synthetic_shop.catalog import STYLE_DIMENSIONS, Catalog, Floats, Ints, style_centres
from batch.synthetic_shop.streams import random_stream

BLOCK_SHOPPERS = 2_000
FAVOURITE_LEAVES = 8
FAVOURITE_BRANDS = 4
_PERSONAS = 14
_RATE_SPREAD = 1.2
_RATE_LIMIT = 10.0
_NEW_SHARE = 0.25
_FAVOURITE_WEIGHTS = np.array([0.25, 0.19, 0.15, 0.12, 0.1, 0.08, 0.06, 0.05])


@dataclass(frozen=True, slots=True)
class Shoppers:
    """One block of shoppers; every array has one row a shopper.

    `first_day` is the day of the first visit; `rate` is relative (its mean over all shoppers is about 1); `taste`
    lives in the space of `Catalog.style`; `price_level` in that of `Catalog.price_z`; `readiness` shifts the log-odds
    of putting something into the cart.
    """

    block: int
    first_day: Ints
    rate: Floats
    taste: Floats
    price_level: Floats
    brands: Ints
    leaves: Ints
    readiness: Floats

    def __len__(self) -> int:
        """Number of shoppers in the block."""
        return len(self.rate)

    def affinity(self, shopper: Ints, item: Ints, catalog: Catalog) -> Floats:
        """How much each shopper likes each item, about -2 to 3; the two index arrays broadcast."""
        style = np.einsum("...d,...d->...", self.taste[shopper], catalog.style[item])
        brand = (self.brands[shopper] == catalog.brand[item][..., None]).any(-1)
        price = np.abs(catalog.price_z[item] - self.price_level[shopper])
        liking: Floats = 2.5 * style + 0.8 * brand - 0.5 * price + catalog.quality[item]
        return liking


def build_block(
    seed: int, block: int, count: int, catalog: Catalog, *, days: int, visits_per_shopper: float
) -> Shoppers:
    """The `block`-th block with `count` shoppers; the tastes do not depend on how many blocks there are."""
    random = random_stream(seed, "shoppers", block=block)
    rate = np.minimum(np.exp(random.normal(0, _RATE_SPREAD, count) - _RATE_SPREAD**2 / 2), _RATE_LIMIT)
    return Shoppers(
        block=block,
        first_day=_draw_first_days(random, rate, days, visits_per_shopper),
        rate=rate,
        taste=_draw_tastes(seed, random, count),
        price_level=random.normal(0, 0.8, count),
        brands=_draw_brands(random, count, catalog),
        leaves=_draw_leaves(seed, random, count, catalog),
        readiness=random.normal(0, 0.6, count),
    )


def _draw_first_days(random: np.random.Generator, rate: Floats, days: int, visits_per_shopper: float) -> Ints:
    """Known shoppers come as soon as their rate makes them, new ones appear on any day."""
    wait = random.exponential(size=len(rate)) * days / np.maximum(visits_per_shopper * rate, 0.3)
    known = np.floor(wait).astype(np.int64) % days
    fresh = random.integers(0, days, len(rate))
    return np.where(random.random(len(rate)) < _NEW_SHARE, fresh, known)


def _draw_tastes(seed: int, random: np.random.Generator, count: int) -> Floats:
    """One main style, a second one, and something of one's own."""
    centres = style_centres(seed)
    first, second = random.integers(0, len(centres), (2, count))
    mixture = centres[first] + 0.5 * centres[second] + random.normal(0, 0.15, (count, STYLE_DIMENSIONS))
    unit: Floats = mixture / np.linalg.norm(mixture, axis=1, keepdims=True)
    return unit


def _draw_brands(random: np.random.Generator, count: int, catalog: Catalog) -> Ints:
    # Large brands have many friends: draw the brand of a random item.
    return catalog.brand[random.integers(0, len(catalog), (count, FAVOURITE_BRANDS))]


def _draw_leaves(seed: int, random: np.random.Generator, count: int, catalog: Catalog) -> Ints:
    """Favourite leaf categories, most liked first, without repetition (Gumbel top-k over the persona's weights)."""
    shared = random_stream(seed, "personas")
    leaf_count = len(catalog.leaves)
    roots = sorted({LEAVES[number].root for number in catalog.leaves})
    root_of_leaf = np.array([roots.index(LEAVES[number].root) for number in catalog.leaves])
    size = np.log(np.diff(catalog.leaf_start))
    leaning = shared.normal(0, 1.0, (_PERSONAS, len(roots)))[:, root_of_leaf] + shared.normal(
        0, 1.0, (_PERSONAS, leaf_count)
    )
    persona = random.integers(0, _PERSONAS, count)
    score = 1.7 * leaning[persona] + 0.6 * size + random.gumbel(size=(count, leaf_count))
    order = np.argsort(-score, axis=1, kind="stable")[:, :FAVOURITE_LEAVES]
    if leaf_count < FAVOURITE_LEAVES:
        order = (
            np.resize(order, (count, FAVOURITE_LEAVES))
            if leaf_count == 1
            else order[:, np.arange(FAVOURITE_LEAVES) % leaf_count]
        )
    return order


def favourite_leaf(shoppers: Shoppers, shopper: Ints, random: np.random.Generator) -> Ints:
    """One of each shopper's favourite leaves, the most liked most often."""
    rank = np.searchsorted(np.cumsum(_FAVOURITE_WEIGHTS)[:-1], random.random(len(shopper)), side="right")
    return shoppers.leaves[shopper, rank]
