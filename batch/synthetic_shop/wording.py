"""What products and brands are called, and the sentences that describe them."""

from __future__ import annotations

from collections.abc import Sequence

from batch.synthetic_shop.assortment import BRAND_ENDS, BRAND_STARTS, COLOURS, LEAVES, MODELS, PACKS, QUALIFIERS, STYLES
from batch.synthetic_shop.streams import random_stream

_TRAITS = (
    "carefully made",
    "tested by our own staff",
    "made in small batches",
    "easy to live with",
    "often given as a present",
    "award-winning",
    "new this season",
    "a favourite of regulars",
)
_OPENINGS = (
    "{article} {style} {kind} from {brand}.",
    "{brand} made this {kind} for people who like things {style}.",
    "The {model}: {kind} with a look that is {style}.",
)
_CLOSINGS = (
    "Variant: {variant}; {trait}.",
    "{trait_title}. Variant: {variant}.",
    "{trait_title}, offered as {variant}.",
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

    def describe(
        self, item: int, *, brand: int, kind: str, style: int, number: int, consumable: bool
    ) -> tuple[str, str, dict[str, str]]:
        """(title, description, attributes) of one item; `number` tells members of a family apart.

        What is used up comes in packs, everything else in colours.
        """
        model_pick, variant_pick, trait_pick, opening, closing = (int(pick) for pick in self._picks[item])
        colour = COLOURS[(style * 3 + variant_pick % 3) % len(COLOURS)]
        variant = PACKS[variant_pick % len(PACKS)] if consumable else colour
        trait = _TRAITS[trait_pick % len(_TRAITS)]
        words = {
            "article": "An" if STYLES[style][0] in "aeiou" else "A",
            "style": STYLES[style],
            "kind": kind,
            "brand": self._brands[brand],
            "model": f"{MODELS[(model_pick + number) % len(MODELS)]} {10 * (1 + number % 90)}",
            "variant": variant,
            "trait": trait,
            "trait_title": trait[0].upper() + trait[1:],
        }
        title = f"{words['brand']} {words['model']} {kind}, {variant}"
        sentences = (_OPENINGS[opening % len(_OPENINGS)], _CLOSINGS[closing % len(_CLOSINGS)])
        attributes = {"pack" if consumable else "colour": variant, "style": STYLES[style]}
        return title, " ".join(sentences).format_map(words), attributes
