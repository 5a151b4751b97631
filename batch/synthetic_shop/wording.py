"""What products and brands are called, and the sentences that describe them."""

from __future__ import annotations

from collections.abc import Sequence

from batch.synthetic_shop.assortment import BRAND_ENDS, BRAND_STARTS, COLOURS, LEAVES, MODELS, QUALIFIERS, STYLES
from batch.synthetic_shop.streams import random_stream

MATERIALS = (
    "recycled",
    "hand-finished",
    "lab-tested",
    "locally made",
    "certified",
    "fair-trade",
    "award-winning",
    "new-season",
)
_OPENINGS = (
    "A {style} {kind} from {brand}.",
    "{brand} made this {kind} for people who like things {style}.",
    "The {model}: a {kind} with a {style} look.",
)
_CLOSINGS = (
    "Comes in {colour}; {trait} and made to last.",
    "{trait_title}, in {colour}.",
    "This season's colour is {colour}. {trait_title}.",
)


def brand_names(seed: int, count: int) -> list[str]:
    """`count` different invented brand names (at most 576; beyond that they get a number)."""
    order = random_stream(seed, "brand-names").permutation(len(BRAND_STARTS) * len(BRAND_ENDS))
    names = []
    for number in range(count):
        start, end = divmod(int(order[number % len(order)]), len(BRAND_ENDS))
        again = number // len(order)
        names.append(BRAND_STARTS[start] + BRAND_ENDS[end] + (f" {again + 1}" if again else ""))
    return names


def family_kind(leaf: int, rank: int) -> str:
    """The product kind of a leaf's `rank`-th family: the leaf's own kinds first, then qualified ones."""
    kinds = LEAVES[leaf].kinds
    qualifier = QUALIFIERS[(rank // len(kinds)) % len(QUALIFIERS)]
    return f"{qualifier} {kinds[rank % len(kinds)]}".strip()


class Wording:
    """Titles, descriptions and attributes of items, from their brand, kind, style and number within the family."""

    def __init__(self, seed: int, brands: Sequence[str], count: int) -> None:
        random = random_stream(seed, "wording")
        self._brands = brands
        self._picks = random.integers(0, 2**31, (count, 5))

    def describe(self, item: int, *, brand: int, kind: str, style: int, number: int) -> tuple[str, str, dict[str, str]]:
        """(title, description, attributes) of one item; `number` tells members of a family apart."""
        model_pick, colour_pick, trait_pick, opening, closing = (int(pick) for pick in self._picks[item])
        model = MODELS[(model_pick + number) % len(MODELS)]
        colour = COLOURS[(style * 3 + colour_pick % 3) % len(COLOURS)]
        trait = MATERIALS[trait_pick % len(MATERIALS)]
        words = {
            "style": STYLES[style],
            "kind": kind,
            "brand": self._brands[brand],
            "model": f"{model} {10 * (1 + number % 90)}",
            "colour": colour,
            "trait": trait,
            "trait_title": trait.capitalize(),
        }
        title = f"{words['brand']} {words['model']} {kind}, {colour}"
        sentences = (_OPENINGS[opening % len(_OPENINGS)], _CLOSINGS[closing % len(_CLOSINGS)])
        return title, " ".join(sentences).format_map(words), {"colour": colour, "style": STYLES[style], "trait": trait}
