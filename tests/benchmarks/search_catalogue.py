"""Products with the synthetic shop's wording, and queries for them with one typo: for the test and the benchmark."""

from __future__ import annotations

import random
import string
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from batch.synthetic_shop.assortment import LEAVES
from batch.synthetic_shop.calendar import Calendar
from batch.synthetic_shop.catalog import build_catalog
from batch.synthetic_shop.wording import Wording, brand_names, family_kind
from shared.catalog import Product
from shared.events import ItemId

_DAY_MS = 86_400_000
_FIRST_DAY_AT = 1_767_225_600_000
_DAYS = 30


@dataclass(frozen=True, slots=True)
class Misspelt:
    """A product's title with one typo in a word of five letters or more."""

    index: int
    query: str
    word: str
    typed: str


def synthetic_products(count: int, seed: int = 5) -> list[Product]:
    """`count` products as the generated shop would have them, all in stock."""
    starts = _FIRST_DAY_AT + np.arange(_DAYS) * _DAY_MS
    catalog = build_catalog(seed, count, Calendar(starts, starts + _DAY_MS, np.arange(_DAYS) % 7, np.ones(_DAYS)))
    brands = brand_names(seed, catalog.brand_count)
    wording = Wording(seed, brands, len(catalog))
    first_family = catalog.family[catalog.leaf_start[:-1]]
    ids = catalog.item_ids()
    products = []
    for item in range(len(catalog)):
        leaf, family, brand = int(catalog.leaf[item]), int(catalog.family[item]), int(catalog.brand[item])
        title, description, attributes = wording.describe(
            item,
            brand=brand,
            kind=family_kind(catalog.leaves[leaf], family - int(first_family[leaf])),
            style=int(catalog.style_number[item]),
            number=item - int(catalog.family_start[family]),
            consumable=bool(catalog.consumable[item]),
        )
        place = LEAVES[catalog.leaves[leaf]]
        products.append(
            Product(
                item_id=ItemId(ids[item]),
                title=title,
                description=description,
                categories=(place.root, place.name),
                brand=brands[brand],
                price_cents=int(catalog.price_cents[item]),
                stock=10,
                arrived_at=int(catalog.arrived_at[item]),
                attributes=attributes,
            )
        )
    return products


def misspelt(products: Sequence[Product], count: int, seed: int = 1) -> list[Misspelt]:
    """`count` queries, each for a product drawn at random: its title with one edit in one word."""
    draw = random.Random(seed)
    queries: list[Misspelt] = []
    while len(queries) < count:
        index = draw.randrange(len(products))
        words = products[index].title.replace(",", " ").split()
        places = [place for place, word in enumerate(words) if len(word) >= 5 and word.isalpha()]
        if places:
            place = draw.choice(places)
            word = words[place]
            typed = one_edit(word, draw)
            words[place] = typed
            queries.append(Misspelt(index, " ".join(words), word, typed))
    return queries


def one_edit(word: str, draw: random.Random) -> str:
    """A letter too few, too many or wrong, or two neighbours swapped; never the word itself."""
    while True:
        place, letter = draw.randrange(len(word)), draw.choice(string.ascii_lowercase)
        swapped = word[:place] + word[place + 1 : place + 2] + word[place] + word[place + 2 :]
        edits = (word[:place] + word[place + 1 :], word[:place] + letter + word[place:],
                 word[:place] + letter + word[place + 1 :], swapped)  # fmt: skip
        typed = draw.choice(edits)
        if typed.lower() != word.lower():
            return typed
