"""What of a product is searched, under which weight, and how text is made ready for the tokenizer."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import Any, Final

from shared.catalog import Product

WEIGHTS: Final[Mapping[str, float]] = {
    "item_id": 10.0,
    "title": 8.0,
    "brand": 6.0,
    "categories": 4.0,
    "description": 1.0,
    "attributes": 2.0,
}
"""Columns of the index, in order, with their weights in BM25."""
NAMING: Final = ("item_id", "title", "brand", "categories")
"""Columns in which the beginning of a word is enough; in long texts it would find too much."""
TOKENIZER: Final = "unicode61 remove_diacritics 2 categories ''L* N* M* Co''"
"""Marks are parts of words: the vowels of many scripts are such."""

_ACCENTS: Final = frozenset({*range(10, 36), *range(200, 256)})
"""Combining classes: points of Hebrew and Arabic, accents above and below. Not those that make another syllable."""
_PLAIN: Final = str.maketrans({"ł": "l", "ø": "o", "đ": "d", "ħ": "h", "\u0131": "i", "æ": "ae", "œ": "oe"})
_IDEOGRAPH = re.compile(r"([\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f])")


def texts_of(product: Product) -> tuple[str, ...]:
    """The product's text by column of the index."""
    columns = (
        product.item_id,
        product.title,
        product.brand or "",
        " ".join(product.categories),
        product.description,
        " ".join(_words_in(product.attributes)),
    )
    return tuple(readable(column) for column in columns)


def readable(text: str) -> str:
    """The text as the tokenizer takes it: folded where FTS5 does not, every ideograph or kana a word of its own.

    No NUL, no unpaired surrogate; case, accents and vowel points gone in every script, letters with a stroke and
    ligatures as plain ones. Writing without spaces would otherwise be one long word, found by its beginning only.
    """
    if text.isascii():
        return text.replace("\0", " ")
    whole = text.replace("\0", " ").encode("utf-8", "replace").decode("utf-8")
    parts = unicodedata.normalize("NFKD", whole.casefold()).translate(_PLAIN)
    kept = "".join(part for part in parts if unicodedata.combining(part) not in _ACCENTS)
    return _IDEOGRAPH.sub(r" \1 ", unicodedata.normalize("NFC", kept))


def digest_of(texts: tuple[str, ...]) -> int:
    """64 bits that change when any column's text does."""
    return int.from_bytes(blake2b("\0".join(texts).encode(), digest_size=8).digest(), "little")


def _words_in(value: Any) -> Iterator[str]:  # noqa: ANN401 - attributes are whatever JSON the shop sent
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name in sorted(value):
            yield from _words_in(value[name])
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _words_in(each)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield str(value)
