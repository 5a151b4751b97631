"""Where a search goes on: a sealed list of what was shown already.

The next page is the best of what was not shown yet. So nothing comes twice and nothing is passed over, whatever
changed its place meanwhile: prices, the shopper's clicks, or a new release.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Sequence
from hashlib import blake2b
from typing import Final

import numpy as np

from shared.errors import InvalidCursor

MOST_SHOWN: Final = 500
"""Pages end here: a cursor names each item in 8 bytes, and addresses must stay below 8 kB."""
LONGEST: Final = 6000
_FORMAT: Final = b"\x01"
_DIGEST: Final = 8
_SEAL: Final = 8


class CursorCodec:
    """Seals with the shop's secret, so that a cursor is either one of ours for just this query, or refused."""

    def __init__(self, secret: str) -> None:
        self._key = blake2b(secret.encode(), digest_size=32, person=b"search-cursor").digest()

    def encode(self, query: Sequence[object], shown: Sequence[int]) -> str:
        """`query` is what must stay the same from page to page; `shown` holds 64-bit item hashes."""
        hashes = np.array(sorted(set(shown)), dtype="<u8").tobytes()
        body = _FORMAT + self._digest(query) + hashes
        return base64.urlsafe_b64encode(body + self._seal(body)).rstrip(b"=").decode()

    def decode(self, query: Sequence[object], cursor: str) -> list[int]:
        """The hashes shown so far. Raises InvalidCursor for one that this shop did not make, or of another query."""
        try:
            data = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError) as error:
            raise InvalidCursor("the cursor is not one of ours; begin again without one") from error
        body, seal = data[:-_SEAL], data[-_SEAL:]
        hashes = body[len(_FORMAT) + _DIGEST :]
        if len(hashes) % 8 or not hmac.compare_digest(seal, self._seal(body)) or not body.startswith(_FORMAT):
            raise InvalidCursor("the cursor is not one of ours; begin again without one")
        if body[len(_FORMAT) : len(_FORMAT) + _DIGEST] != self._digest(query):
            raise InvalidCursor(
                "the cursor belongs to another search; words, filters, order and user must stay the same"
            )
        return np.frombuffer(hashes, dtype="<u8").tolist()

    def _digest(self, query: Sequence[object]) -> bytes:
        return blake2b(
            repr(tuple(query)).encode("utf-8", "backslashreplace"), digest_size=_DIGEST, key=self._key
        ).digest()

    def _seal(self, body: bytes) -> bytes:
        return blake2b(body, digest_size=_SEAL, key=self._key, person=b"seal").digest()
