"""Keys of services and operators: held as hashes, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from typing import Final

from functions.access.caller import Caller, Role

LONGEST_KEY_BYTES: Final = 512


class ApiKeys:
    """The keys that are valid now, several for each role so that one can follow another without a gap."""

    def __init__(self, service_keys: Sequence[bytes], operator_keys: Sequence[bytes]) -> None:
        """SHA-256 digests of the keys, 32 bytes each."""
        named = [(digest, Role.SERVICE) for digest in service_keys] + [
            (digest, Role.OPERATOR) for digest in operator_keys
        ]
        self._keys = [(digest, Caller(role, None, f"key:{digest.hex()[:16]}")) for digest, role in named]

    def find(self, presented: bytes) -> Caller | None:
        """The caller with this key, the highest role where several have it; None if nobody has.

        Hashing first makes every comparison one of 32 bytes, and all of them are made: the time tells neither how much
        of a guess was right nor which key it was.
        """
        if not presented or len(presented) > LONGEST_KEY_BYTES:
            return None
        digest = hashlib.sha256(presented).digest()
        found: Caller | None = None
        for known, caller in self._keys:
            if hmac.compare_digest(known, digest):
                found = caller
        return found
