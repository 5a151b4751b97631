"""The nightly search index: an FTS5 table of all products, with FTS5's own answers for words that many items have."""

from __future__ import annotations

import sqlite3
import threading
import weakref
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import accumulate
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shared.catalog import Product
from shared.errors import CorruptRecord
from shared.search.bm25 import Statistics
from shared.search.impacts import Instances, frequent_answers
from shared.search.postings import MANY, Postings
from shared.search.text import NAMING, TOKENIZER, WEIGHTS, digest_of, texts_of

FORMAT: Final = 1
_LAST: Final = "\U0010ffff"
_COLUMNS: Final = ", ".join(WEIGHTS)
_INSERT: Final = f"INSERT INTO items(rowid, {_COLUMNS}) VALUES (?{', ?' * len(WEIGHTS)})"  # noqa: S608 - names of this package
_MATCHING: Final = f"""
    SELECT rowid, -bm25(items, {", ".join(map(str, WEIGHTS.values()))}) FROM items WHERE items MATCH ? ORDER BY rowid
"""  # noqa: S608 - names and weights of this package


def build_index(products: Iterable[Product]) -> bytes:
    """The index of products in a release's order, as an SQLite database; equal products give equal bytes."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.execute("PRAGMA page_size = 4096")
        connection.execute("BEGIN")
        connection.execute(f"CREATE VIRTUAL TABLE items USING fts5({_COLUMNS}, content='', tokenize='{TOKENIZER}')")
        connection.execute(
            "CREATE TABLE frequent (word TEXT, begins INT, indexes BLOB, scores BLOB, PRIMARY KEY (word, begins))"
        )
        connection.execute("CREATE TABLE snapshot (name TEXT PRIMARY KEY, value)")
        digests: list[int] = []
        connection.executemany(_INSERT, _rows(products, digests))
        connection.execute("INSERT INTO items(items) VALUES ('optimize')")
        instances = Instances.of(connection)
        facts = {"format": FORMAT, "words": len(instances.word), "digests": np.array(digests, "<u8").tobytes()}
        connection.executemany("INSERT INTO snapshot VALUES (?, ?)", facts.items())
        answers = (
            (word, int(begins), found.indexes.astype("<i4").tobytes(), found.scores.astype("<f4").tobytes())
            for word, begins, found in frequent_answers(instances, len(digests))
        )
        connection.executemany("INSERT INTO frequent VALUES (?, ?, ?, ?)", answers)
        connection.execute("COMMIT")
        connection.execute("VACUUM")
        return connection.serialize()


class SearchIndex:
    """An index in memory. One connection, one query at a time: safe to use from many threads."""

    def __init__(self, data: bytes) -> None:
        """Raises CorruptRecord for bytes that are not an index of this format."""
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        weakref.finalize(self, self._connection.close)
        if not data:
            raise CorruptRecord("the search index is empty")  # SQLite would call it a lack of memory
        try:
            self._connection.deserialize(data)
            facts = dict(self._connection.execute("SELECT name, value FROM snapshot"))
            self._connection.execute("CREATE VIRTUAL TABLE temp.seen USING fts5vocab(main, items, row)")
            seen = self._connection.execute("SELECT term, doc FROM seen ORDER BY term").fetchall()
            self._connection.execute("PRAGMA query_only = 1")
        except sqlite3.DatabaseError as error:
            raise CorruptRecord(f"the search index cannot be read: {error}") from error
        if facts.get("format") != FORMAT:
            raise CorruptRecord(f"the search index has format {facts.get('format')}, this code reads {FORMAT}")
        self.words: list[str] = [word for word, _ in seen]
        """Every word, ascending."""
        self._passed = [0, *accumulate(having for _, having in seen)]
        self.digests: NDArray[np.uint64] = np.frombuffer(facts["digests"], "<u8")
        """uint64[n]: of each item's text (`text.digest_of`)."""
        self.statistics = Statistics(len(self.digests), facts["words"] / max(len(self.digests), 1))

    def having(self, word: str) -> int:
        """How many items have a word."""
        place = bisect_left(self.words, word)
        known = place < len(self.words) and self.words[place] == word
        return self._passed[place + 1] - self._passed[place] if known else 0

    def begins(self, beginning: str) -> bool:
        """Does any word begin so?"""
        place = bisect_left(self.words, beginning)
        return place < len(self.words) and self.words[place].startswith(beginning)

    def postings(self, word: str) -> Postings:
        """The items that have a word, scored by FTS5's bm25."""
        return self._postings(word, many=self.having(word) >= MANY, begins=False)

    def beginning_postings(self, beginning: str) -> Postings:
        """The items in whose id, title, brand or categories a word begins so; of a word of many items, all of them."""
        first, last = bisect_left(self.words, beginning), bisect_left(self.words, beginning + _LAST)
        many = self._passed[last] - self._passed[first] >= MANY
        if many and last - first == 1:
            return self.postings(self.words[first])
        return self._postings(beginning, many=many, begins=True)

    def _postings(self, word: str, *, many: bool, begins: bool) -> Postings:
        with self._lock:
            if many:
                held = self._connection.execute(
                    "SELECT indexes, scores FROM frequent WHERE word = ? AND begins = ?", (word, int(begins))
                ).fetchone()
                if held is not None:
                    return Postings(np.frombuffer(held[0], "<i4"), np.frombuffer(held[1], "<f4"))
            return _answer(self._connection, _expression(word, begins=begins))


def _rows(products: Iterable[Product], digests: list[int]) -> Iterator[tuple[object, ...]]:
    for index, product in enumerate(products):
        texts = texts_of(product)
        digests.append(digest_of(texts))
        yield (index, *texts)


def _expression(word: str, *, begins: bool) -> str:
    """A word as a phrase of FTS5's query syntax: whatever it holds is data."""
    phrase = '"' + word.replace('"', '""') + '"'
    return f"{{{' '.join(NAMING)}}} : {phrase} *" if begins else phrase


def _answer(connection: sqlite3.Connection, expression: str) -> Postings:
    found = connection.execute(_MATCHING, (expression,)).fetchall()
    table = np.array(found, dtype=np.float64).reshape(-1, 2)
    return Postings(table[:, 0].astype(np.int32), table[:, 1].astype(np.float32))
