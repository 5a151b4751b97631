"""Words as the index has them: FTS5's own tokenizer is asked, so that a query can never be cut another way."""

from __future__ import annotations

import sqlite3
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from shared.search.text import TOKENIZER, WEIGHTS, readable


@dataclass(frozen=True, slots=True)
class Word:
    """One distinct word of a document: how often each column has it, in the columns' order."""

    text: str
    times: tuple[int, ...]


class Tokenizer:
    """A scratch FTS5 table in memory, empty between calls; safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        weakref.finalize(self, self._connection.close)
        columns = ", ".join(WEIGHTS)
        self._connection.execute(f"CREATE VIRTUAL TABLE scratch USING fts5({columns}, tokenize='{TOKENIZER}')")
        self._connection.execute("CREATE VIRTUAL TABLE seen USING fts5vocab(scratch, instance)")
        places = ", ".join("?" * (1 + len(WEIGHTS)))
        self._insert = f"INSERT INTO scratch(rowid, {columns}) VALUES ({places})"  # noqa: S608 - names of this package

    def words(self, text: str, most: int) -> list[str]:
        """The first `most` distinct words of a text, in order."""
        blank = [""] * (len(WEIGHTS) - 1)
        order = "SELECT term FROM seen GROUP BY term ORDER BY min(offset) LIMIT ?"
        return [term for (term,) in self._look([(0, readable(text), *blank)], order, most)]

    def documents(self, documents: Sequence[tuple[str, ...]]) -> list[list[Word]]:
        """The words of documents, each given as the (readable) text of every column."""
        found: list[dict[str, list[int]]] = [{} for _ in documents]
        rows = [(number, *columns) for number, columns in enumerate(documents)]
        places = {name: place for place, name in enumerate(WEIGHTS)}
        counted = "SELECT doc, term, col, count(*) FROM seen GROUP BY doc, term, col"
        for number, term, column, times in self._look(rows, counted):
            found[number].setdefault(term, [0] * len(WEIGHTS))[places[column]] = times
        return [[Word(term, tuple(times)) for term, times in words.items()] for words in found]

    def _look(self, rows: Sequence[tuple[object, ...]], query: str, *values: object) -> list[Any]:
        with self._lock:
            self._connection.execute("BEGIN")
            try:
                self._connection.executemany(self._insert, rows)
                return self._connection.execute(query, values).fetchall()
            finally:
                self._connection.execute("ROLLBACK")
