"""Words one edit away: insertion, deletion, substitution, or two neighbours swapped."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
from rapidfuzz import process
from rapidfuzz.distance import OSA

LEAST_LETTERS: Final = 5
"""Shorter words have too many neighbours; the longer of the two counts, so that a letter may be missing."""
LONGEST: Final = 40


class Vocabulary:
    """The words that typos are looked up in, by length. Those with a digit are codes and sizes: no typo leads there."""

    def __init__(self, words: Iterable[str]) -> None:
        """Keeps no word that holds a digit, nor one of fewer than four letters."""
        self._by_length: dict[int, list[str]] = {}
        for word in words:
            if LEAST_LETTERS - 1 <= len(word) <= LONGEST and not _holds_digit(word):
                self._by_length.setdefault(len(word), []).append(word)

    def neighbours(self, typed: str) -> list[str]:
        """Words at an optimal string alignment distance of 1 from what was typed, ascending.

        G. Navarro, A guided tour to approximate string matching, ACM Computing Surveys 33 (2001).
        """
        if not LEAST_LETTERS - 1 <= len(typed) <= LONGEST or _holds_digit(typed):
            return []
        found: list[str] = []
        for length in (len(typed) - 1, len(typed), len(typed) + 1):
            words = self._by_length.get(length, [])
            if words and max(length, len(typed)) >= LEAST_LETTERS:
                away = process.cdist([typed], words, scorer=OSA.distance, score_cutoff=1, dtype=np.uint8)[0]
                found += [words[place] for place in np.flatnonzero(away == 1).tolist()]
        return sorted(found)


def _holds_digit(word: str) -> bool:
    return any(map(str.isdigit, word))
