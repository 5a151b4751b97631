"""Who was erased, as the overlays tell it: at once, and before any fold or lake knows."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import batched
from typing import Final

from redis import Redis

from shared.adapters.keys import overlaid_user, overlay_pattern
from shared.adapters.redis_connection import send_pipelined
from shared.adapters.redis_state import state_errors
from shared.features.overlay import FIELDS, decode_overlay

_AT_ONCE: Final = 1000


def overlaid_erasures(client: Redis) -> Iterator[tuple[bytes, int]]:
    """The keyed hash of everybody who was erased, and when (epoch ms); to find them every key is looked at.

    Raises StateUnavailable, CorruptRecord.
    """
    with state_errors():
        for names in batched(client.scan_iter(overlay_pattern(), count=_AT_ONCE), _AT_ONCE, strict=False):
            answers = send_pipelined(client, [("HMGET", name, *FIELDS) for name in names])
            for name, fields in zip(names, answers, strict=True):
                erased_at = decode_overlay(fields).erased_at
                if erased_at is not None:
                    yield overlaid_user(name), erased_at
