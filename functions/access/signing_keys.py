"""The public keys that tokens are signed with: cached, renewed in the background, asked for when a new one appears."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from functions.access.caller import SigningKeysUnavailable
from shared.errors import InfrastructureFault

SHORTEST_RSA_BITS: Final = 2048
_ALGORITHMS: Final = {"RSA": "RS256", "EC P-256": "ES256"}
PAUSE_BETWEEN_FETCHES_S: Final = 10.0
"""A token with an unknown key id makes a worker look for new keys, but not more often than this."""


class SigningKeys:
    """Keys by their id. Keys once read stay in use while the document cannot be read again."""

    def __init__(self, read: Callable[[], bytes], seconds: Callable[[], float]) -> None:
        """`read` gives the document or raises InfrastructureFault; `seconds` is a monotonic clock."""
        self._read = read
        self._seconds = seconds
        self._keys: Mapping[str, jwt.PyJWK] = {}
        self._fetching = threading.Lock()
        self._fetched_at = -PAUSE_BETWEEN_FETCHES_S
        self._failed = False

    def known(self, key_id: str | None) -> jwt.PyJWK | None:
        """The key of this id; without an id the only key there is."""
        keys = self._keys
        if key_id is None:
            return next(iter(keys.values())) if len(keys) == 1 else None
        return keys.get(key_id)

    def may_have_changed(self) -> bool:
        """Whether it is time to look for keys that are not known.

        Raises:
            SigningKeysUnavailable: the last look failed, or one is under way; whether a key exists cannot be said.
        """
        if self._seconds() - self._fetched_at >= PAUSE_BETWEEN_FETCHES_S:
            return True
        if self._failed or self._fetching.locked():
            raise SigningKeysUnavailable("the token's signing key is not known and the keys cannot be read now")
        return False

    def refresh(self) -> None:
        """Read the document, in the caller's thread; of several callers one reads and the others return at once.

        Raises:
            InfrastructureFault: it cannot be read or holds no usable key; the keys known so far stay.
        """
        if not self._fetching.acquire(blocking=False):
            return
        try:
            self._fetched_at = self._seconds()
            self._failed = True
            self._keys = usable_keys(self._read())
            self._failed = False
        finally:
            self._fetching.release()


def usable_keys(document: bytes) -> dict[str, jwt.PyJWK]:
    """The document's public keys for RS256 and ES256 by id; others, symmetric ones above all, are passed over.

    Raises:
        InfrastructureFault: it is no key set, or none of its keys is usable.
    """
    try:
        entries = json.loads(document)["keys"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InfrastructureFault("the document of signing keys is no JSON Web Key Set") from error
    keys: dict[str, jwt.PyJWK] = {}
    for entry in entries if isinstance(entries, list) else ():
        key = _usable_key(entry)
        if key is not None:
            keys.setdefault(key.key_id or "", key)
    if not keys:
        raise InfrastructureFault(
            "the document of signing keys has no public RSA key of 2048 bits or more, nor one on P-256"
        )
    return keys


def _usable_key(entry: Any) -> jwt.PyJWK | None:  # noqa: ANN401 - whatever the document holds
    if not isinstance(entry, dict) or "d" in entry or entry.get("use", "sig") != "sig":
        return None
    algorithm = _ALGORITHMS.get(f"{entry.get('kty')} {entry.get('crv', '')}".strip())
    if algorithm is None or entry.get("alg", algorithm) != algorithm or not isinstance(entry.get("kid", ""), str):
        return None
    try:
        key = jwt.PyJWK(entry, algorithm)
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    if isinstance(key.key, RSAPublicKey) and key.key.key_size < SHORTEST_RSA_BITS:
        return None
    return key
