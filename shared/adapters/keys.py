"""Every Redis key and every time to live. One partition's keys share a hash tag, hence a slot of a cluster."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b

from shared.events import keyed_user

DAY_MS = 24 * 3600 * 1000
USER_SHARD_TTL_MS = 407 * DAY_MS
"""400 days, after which an idle user expires by the log's clock, and a week, because the server's clock is another."""

FEED_ENTRIES = 10_000
"""About how many chunks the change feed of one partition remembers; who is further behind reloads."""

RELEASE_BUCKET_SIZE = 64
ALLOCATION = "allocation"
PUBLISHED = "releases:published"
"""List: the releases that were given traffic, newest first."""

HISTORY_SOURCES = "history:sources"
"""Hash: the ingested sources whose state was loaded, to `loaded` or `retired`."""

BROKEN_VERSIONS = "state:broken"
"""Hash: the state versions that are folded no longer, to why."""

USER_KEY_BYTES = 16


@lru_cache(maxsize=16_384)
def user_key(user_id: str, secret: str) -> bytes:
    """The 16 bytes that stand for a user in key names and release lists: BLAKE2b-128 of the id, keyed with `secret`.

    Of a `keyed_user` they are the ones it holds.
    """
    if user_id.startswith(keyed_user("")):
        return bytes.fromhex(user_id.removeprefix(keyed_user("")))
    key = secret.encode()
    if len(key) > blake2b.MAX_KEY_SIZE:
        key = blake2b(key).digest()
    return blake2b(user_id.encode(), digest_size=USER_KEY_BYTES, key=key).digest()


def overlay_key(user: bytes) -> str:
    """Hash: what the broker log acknowledged of a user before the fold reached it (`shared/features/overlay.py`)."""
    return f"overlay:{{{user.hex()}}}"


OVERLAY_CHANGES = "overlay:changes"
"""Stream: whose overlay was written, so that other workers do not trust what they remember of her."""


def overlay_pattern() -> str:
    """What SCAN takes to find every overlay."""
    return "overlay:{*}"


def overlaid_user(name: bytes) -> bytes:
    """The keyed hash of the user whose overlay key this is."""
    return bytes.fromhex(name.decode().removeprefix("overlay:{").removesuffix("}"))


def item_field(item_hash: int) -> bytes:
    """The hash field of an item: its 64-bit hash, little-endian, so that numpy reads fields in bulk."""
    return item_hash.to_bytes(8, "little")


def item_hash_of(field: bytes) -> int:
    """The inverse of `item_field`."""
    return int.from_bytes(field, "little")


def source_pattern(source: str) -> str:
    """What SCAN takes to find every key of an event source, whatever the partition."""
    return f"{{{source}.*}}:*"


def state_version_of(name: bytes) -> tuple[str, str] | None:
    """The role and state version of a key as SCAN gives it; None for a key of no version."""
    tag, closed, rest = name.partition(b"}:")
    role, _, version = rest.partition(b":")
    if not (tag.startswith(b"{") and closed and version):
        return None
    return role.decode(), version.partition(b":")[0].decode()


class PartitionKeys:
    """The keys of one partition of one event source."""

    __slots__ = ("_tag", "broker_clock", "broker_log", "catalogue", "landing", "log_mark")

    def __init__(self, source: str, partition: int) -> None:
        self._tag = f"{{{source}.{partition}}}"
        self.log_mark = f"{self._tag}:logmark"
        self.landing = f"{self._tag}:landing"
        self.catalogue = f"{self._tag}:c"
        self.broker_log = f"{self._tag}:log"
        self.broker_clock = f"{self._tag}:clock"

    def mark(self, version: str) -> str:
        """String: the mark of a state version."""
        return f"{self._tag}:mark:{version}"

    def loader(self, version: str) -> str:
        """String: the token of the backfill that loads this version, until its mark stands."""
        return f"{self._tag}:loader:{version}"

    def user(self, version: str, user: bytes) -> str:
        """String: one user's shard."""
        return f"{self._tag}:u:{version}:{user.hex()}"

    def users(self, version: str, users: Iterable[bytes]) -> list[str]:
        """As `user`, of many."""
        prefix = self.user(version, b"")
        return [prefix + user.hex() for user in users]

    def items(self, version: str) -> str:
        """Hash: item field to encoded counters."""
        return f"{self._tag}:i:{version}"

    def feed(self, version: str) -> str:
        """Stream: which items each chunk touched."""
        return f"{self._tag}:feed:{version}"

    def checkpoint(self, consumer: str) -> str:
        """String in the broker log's server: the next sequence the consumer asks for, less one."""
        return f"{self._tag}:checkpoint:{consumer}"


def release_meta(release_id: str) -> str:
    """Hash: how many buckets a release's lists have."""
    return f"rel:{release_id}:meta"


def release_bucket(release_id: str, kind: str, bucket: int) -> str:
    """Hash: one bucket of a release's lists; `kind` is u, cooccurrence, similar or bought_together."""
    return f"rel:{release_id}:{kind}:{bucket}"
