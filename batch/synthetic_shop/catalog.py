"""The products: where they stand in the category tree, what they cost, what they are like, what goes with them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from batch.synthetic_shop.assortment import LEAVES, STYLES
from batch.synthetic_shop.calendar import Calendar
from batch.synthetic_shop.streams import random_stream

STYLE_DIMENSIONS = 8
PARTNERS = 3
_FAMILY_SIZE = 8
_ITEMS_PER_LEAF = 12
_ARRIVING_SHARE = 0.2
_HIDDEN_SHARE = 0.006
_VIRAL_SHARE = 0.004
NEVER = 2**30

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Catalog:
    """All items of the history as columns; items are ordered by (leaf, family), so both are ranges of indexes.

    `style` float64 (items, STYLE_DIMENSIONS), unit length; `price_z` is the log price standardised within the leaf;
    `appeal` the log of base popularity; `leaf_start` and `family_start` have one more entry than there are leaves and
    families; `partners` (items, PARTNERS) are items that go with it; days count from 0, -1 is before the history.
    """

    leaves: tuple[int, ...]
    leaf: Ints
    leaf_start: Ints
    family: Ints
    family_start: Ints
    brand: Ints
    brand_count: int
    style_number: Ints
    style: Floats
    price_cents: Ints
    price_z: Floats
    appeal: Floats
    quality: Floats
    consumable: npt.NDArray[np.bool_]
    partners: Ints
    arrival_day: Ints
    arrived_at: Ints
    hidden_day: Ints
    viral_day: Ints
    number: Ints

    def __len__(self) -> int:
        """Number of items."""
        return len(self.leaf)

    def item_ids(self) -> list[str]:
        """Ids, numbered by arrival as shops do."""
        return [f"sku-{number + 1:06d}" for number in self.number]


def style_centres(seed: int) -> Floats:
    """The styles as unit vectors, (styles, STYLE_DIMENSIONS)."""
    return _unit(random_stream(seed, "styles").normal(size=(len(STYLES), STYLE_DIMENSIONS)))


def build_catalog(seed: int, count: int, calendar: Calendar) -> Catalog:
    """`count` items; the work is linear in it."""
    leaves, leaf = _draw_leaves(seed, count)
    leaf_start = np.searchsorted(leaf, np.arange(len(leaves) + 1))
    family, family_start = _draw_families(seed, leaf_start)
    brand, brand_count = _draw_brands(seed, leaves, leaf)
    style_number, style = _draw_styles(seed, family, len(family_start) - 1)
    price_cents, price_z = _draw_prices(seed, leaves, leaf=leaf, family=family, brand=brand, brand_count=brand_count)
    random = random_stream(seed, "appeal")
    appeal = random.normal(0, 0.95, count) + random.normal(0, 0.45, len(family_start) - 1)[family]
    arrival_day, arrived_at = _draw_arrivals(seed, count, calendar)
    number = np.empty(count, np.int64)
    number[np.argsort(arrived_at, kind="stable")] = np.arange(count)
    random = random_stream(seed, "fates")
    return Catalog(
        leaves=leaves,
        leaf=leaf,
        leaf_start=leaf_start,
        family=family,
        family_start=family_start,
        brand=brand,
        brand_count=brand_count,
        style_number=style_number,
        style=style,
        price_cents=price_cents,
        price_z=price_z,
        appeal=appeal,
        quality=random.normal(0, 0.35, count),
        consumable=np.array([LEAVES[number].consumable for number in leaves])[leaf],
        partners=_draw_partners(
            seed, leaves, leaf_start=leaf_start, family=family, family_start=family_start, style=style, appeal=appeal
        ),
        arrival_day=arrival_day,
        arrived_at=arrived_at,
        hidden_day=np.where(random.random(count) < _HIDDEN_SHARE, random.integers(0, calendar.days + 1, count), NEVER),
        viral_day=_draw_viral(random, arrival_day, calendar.days),
        number=number,
    )


def _draw_leaves(seed: int, count: int) -> tuple[tuple[int, ...], Ints]:
    random = random_stream(seed, "leaves")
    leaf_count = int(np.clip(count // _ITEMS_PER_LEAF, 1, len(LEAVES)))
    # Whole roots first, in a drawn order, so that a small shop is a specialist and complements are present.
    roots = list(dict.fromkeys(leaf.root for leaf in LEAVES))
    rank = {roots[place]: position for position, place in enumerate(random.permutation(len(roots)))}
    chosen = sorted(sorted(range(len(LEAVES)), key=lambda number: (rank[LEAVES[number].root], number))[:leaf_count])
    weights = (1.0 + random.permutation(leaf_count)) ** -0.45
    sizes = 1 + random.multinomial(count - leaf_count, weights / weights.sum())
    return tuple(chosen), np.repeat(np.arange(leaf_count), sizes)


def _draw_families(seed: int, leaf_start: Ints) -> tuple[Ints, Ints]:
    random = random_stream(seed, "families")
    sizes: list[Ints] = []
    for items in np.diff(leaf_start):
        families = max(1, round(items / _FAMILY_SIZE))
        drawn = random.multinomial(items, random.dirichlet(np.full(families, 3.0)))
        sizes.append(drawn[drawn > 0])
    family_start = np.concatenate([[0], np.cumsum(np.concatenate(sizes))])
    return np.repeat(np.arange(len(family_start) - 1), np.diff(family_start)), family_start


def _draw_brands(seed: int, leaves: tuple[int, ...], leaf: Ints) -> tuple[Ints, int]:
    random = random_stream(seed, "brands")
    roots = sorted({LEAVES[number].root for number in leaves})
    per_root = int(np.clip(len(leaf) // (25 * len(roots)), 4, 40))
    root_of_item = np.array([roots.index(LEAVES[number].root) for number in leaves])[leaf]
    # Within a root the first brands are the large ones.
    rank = np.minimum((per_root * random.random(len(leaf)) ** 1.6).astype(np.int64), per_root - 1)
    return root_of_item * per_root + rank, per_root * len(roots)


def _draw_styles(seed: int, family: Ints, families: int) -> tuple[Ints, Floats]:
    random = random_stream(seed, "item-styles")
    # A family offers about three styles, so substitutes differ in style and styles cut across families.
    offered = random.integers(0, len(STYLES), (families, 3))
    number = offered[family, random.integers(0, 3, len(family))]
    vectors = style_centres(seed)[number] + random.normal(0, 0.22, (len(family), STYLE_DIMENSIONS))
    return number, _unit(vectors)


def _draw_prices(
    seed: int, leaves: tuple[int, ...], *, leaf: Ints, family: Ints, brand: Ints, brand_count: int
) -> tuple[Ints, Floats]:
    random = random_stream(seed, "prices")
    z = (
        0.55 * random.normal(size=family[-1] + 1)[family]
        + 0.55 * random.normal(size=brand_count)[brand]
        + 0.63 * random.normal(size=len(leaf))
    )
    median = np.array([LEAVES[number].median_price_cents for number in leaves], np.float64)[leaf]
    cents = median * np.exp(0.5 * z)
    # Prices as shops write them: .49 or .99 below 100, whole .00 above.
    pretty = np.where(cents < 10_000, np.round(cents / 50) * 50 - 1, np.round(cents / 500) * 500)
    return np.maximum(pretty, 49).astype(np.int64), z


def _draw_partners(
    seed: int,
    leaves: tuple[int, ...],
    *,
    leaf_start: Ints,
    family: Ints,
    family_start: Ints,
    style: Floats,
    appeal: Floats,
) -> Ints:
    random = random_stream(seed, "partners")
    place = {LEAVES[number].name: position for position, number in enumerate(leaves)}
    first_family = family[leaf_start[:-1]]
    last_family = family[leaf_start[1:] - 1]
    leaf_of_family = np.repeat(np.arange(len(leaves)), last_family - first_family + 1)
    partner_family = np.empty((len(family_start) - 1, 2), np.int64)
    for number, position in enumerate(leaf_of_family):
        offered = [place[name] for name in LEAVES[leaves[position]].complements if name in place] or [int(position)]
        targets = random.choice(offered, 2)
        partner_family[number] = random.integers(first_family[targets], last_family[targets] + 1)
    partners = np.empty((len(family), PARTNERS), np.int64)
    for column in range(PARTNERS):
        chosen = partner_family[family, min(column // 2, 1)]
        low, high = family_start[chosen], family_start[chosen + 1]
        candidates = random.integers(low[:, None], high[:, None], (len(family), 6))
        fit = 1.5 * np.einsum("nd,ncd->nc", style, style[candidates]) + 0.4 * appeal[candidates]
        partners[:, column] = np.take_along_axis(candidates, fit.argmax(1)[:, None], 1)[:, 0]
    return partners


def _draw_arrivals(seed: int, count: int, calendar: Calendar) -> tuple[Ints, Ints]:
    random = random_stream(seed, "arrivals")
    day = np.where(random.random(count) < _ARRIVING_SHARE, random.integers(0, calendar.days, count), -1)
    before = calendar.starts_at[0] - (random.random(count) ** 1.3 * 720 * 86_400_000).astype(np.int64) - 60_000
    within = calendar.starts_at[np.maximum(day, 0)] + random.integers(60_000, 600_000, count)
    return day, np.where(day < 0, before, within)


def _draw_viral(random: np.random.Generator, arrival_day: Ints, days: int) -> Ints:
    viral_day = random.integers(0, days, len(arrival_day))
    chosen = random.random(len(arrival_day)) < max(_VIRAL_SHARE, 2 / len(arrival_day))
    return np.where(chosen, np.maximum(viral_day, arrival_day), NEVER)


def _unit(vectors: Floats) -> Floats:
    unit: Floats = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit
