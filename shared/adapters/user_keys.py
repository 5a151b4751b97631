"""The keyed hash of users for code that hashes many of them, offline."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from shared.adapters.keys import user_key


def user_key_text(user_id: str, secret: str) -> str:
    """`user_key` as 32 hexadecimal digits; it remembers none, as a million users push each other out."""
    return user_key.__wrapped__(user_id, secret).hex()


def keyed_with(secret: str) -> Callable[[str], str]:
    """`user_key_text` under one secret; it can travel to another process."""
    return partial(user_key_text, secret=secret)
