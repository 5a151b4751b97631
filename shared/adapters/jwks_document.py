"""A JSON Web Key Set (RFC 7517) as bytes: a file, or a document fetched over HTTP."""

from __future__ import annotations

import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Final

from shared.errors import InfrastructureFault

TIMEOUT_S: Final = 3.0
MOST_BYTES: Final = 256 * 1024


def is_remote(address: str) -> bool:
    """Whether the address is a URL; anything else is the path of a file."""
    return "://" in address


def read_jwks(address: str) -> bytes:
    """The document, at most 256 KiB.

    Raises:
        InfrastructureFault: it cannot be read now, or is larger than any set of keys.
    """
    try:
        if is_remote(address):
            with urllib.request.urlopen(address, timeout=TIMEOUT_S) as answer:  # noqa: S310 - the setting takes http(s) alone
                document = bytes(answer.read(MOST_BYTES + 1))
        else:
            with Path(address).open("rb") as file:
                document = file.read(MOST_BYTES + 1)
    except (OSError, HTTPException) as error:
        raise InfrastructureFault(f"the signing keys at {address} cannot be read ({type(error).__name__})") from error
    if len(document) > MOST_BYTES:
        raise InfrastructureFault(
            f"the document at {address} has more than {MOST_BYTES} bytes: those are no signing keys"
        )
    return document
