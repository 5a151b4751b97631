"""What is published, in Redis: the allocation, and each release's nightly lists in hashes of about 64."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
from redis import Redis
from redis.exceptions import RedisError, ResponseError

from shared.adapters.keys import ALLOCATION, PUBLISHED, RELEASE_BUCKET_SIZE, release_bucket, release_meta
from shared.adapters.redis_connection import Argument, send_pipelined
from shared.adapters.redis_scripts import FORGET_RECORD, SET_ALLOCATION
from shared.candidates.query import ListKind
from shared.errors import InfrastructureFault, MarkMoved
from shared.ports import Allocation

USERS = "nightly"
ITEM_KINDS = tuple(kind.value for kind in ListKind)
_SHORT_NAMES = {USERS: "u"} | {kind: kind for kind in ITEM_KINDS}
_PIPELINE = 1000


class RedisReleaseStore:
    """The ReleaseStore port, and what publishing needs. Everything but the allocation is safe to repeat."""

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._user_buckets: dict[str, int] = {}

    def allocation(self) -> Allocation | None:
        """See ReleaseStore. Raises InfrastructureFault."""
        with _release_errors():
            document: Any = self._client.get(ALLOCATION)
        return None if document is None else msgspec.json.decode(document, type=Allocation)

    def set_allocation(self, allocation: Allocation) -> None:
        """See ReleaseStore; the first version is 1."""
        with _release_errors():
            SET_ALLOCATION.run(self._client, [ALLOCATION], [allocation.version, msgspec.json.encode(allocation)])

    def nightly_records(self, release_id: str, users: Sequence[bytes]) -> list[bytes | None]:
        """See ReleaseStore; a release that was never begun has no records."""
        buckets = self.user_buckets(release_id)
        if buckets == 0:
            return [None] * len(users)
        return self._fetch([nightly_command(release_id, buckets, user) for user in users])

    def similar_lists(self, release_id: str, kind: str, indexes: Sequence[int]) -> list[bytes | None]:
        """See ReleaseStore."""
        return self._fetch([item_list_command(release_id, kind, index) for index in indexes])

    def user_buckets(self, release_id: str) -> int:
        """How many hashes the release's nightly records lie in, 0 when it is unknown; kept once it is known.

        With it `nightly_command` rides in another trip. Raises InfrastructureFault.
        """
        held = self._user_buckets.get(release_id)
        if held is None:
            with _release_errors():
                value: Any = self._client.hget(release_meta(release_id), "user_buckets")
            if value is None:
                return 0
            held = self._user_buckets[release_id] = int(value)
        return held

    def begin(self, release_id: str, *, user_count: int, item_count: int) -> None:
        """Say how many users and items the release's lists cover, before any is written. Raises InfrastructureFault."""
        meta: dict[Any, Any] = {"user_buckets": _buckets(user_count), "item_buckets": _buckets(item_count)}
        with _release_errors():
            self._client.hset(release_meta(release_id), mapping=meta)
        self._user_buckets.pop(release_id, None)

    def write_lists(self, release_id: str, kind: str, lists: Mapping[bytes, bytes] | Mapping[int, bytes]) -> None:
        """Write encoded lists: by keyed user hash for "nightly", by item index for the other kinds.

        Raises:
            InfrastructureFault: Redis does not answer, or `begin` was not called for this release.
        """
        buckets = self.user_buckets(release_id)
        if buckets == 0:
            raise InfrastructureFault(f"release {release_id} was not begun: its number of users is unknown")
        commands: list[tuple[Argument, ...]] = []
        for key, data in lists.items():
            bucket = _bucket_of(key, buckets)
            commands.append(("HSET", release_bucket(release_id, _SHORT_NAMES[kind], bucket), key, data))
        for start in range(0, len(commands), _PIPELINE):
            self._send(commands[start : start + _PIPELINE])

    def retire(self, release_id: str, ttl_ms: int) -> None:
        """Let the release's lists expire after `ttl_ms`. Raises InfrastructureFault."""
        self._each_key(release_id, lambda name: ("PEXPIRE", name, ttl_ms))

    def keep(self, release_id: str) -> None:
        """Undo `retire` while the lists still stand. Raises InfrastructureFault."""
        self._each_key(release_id, lambda name: ("PERSIST", name))

    def count_lists(self, release_id: str) -> dict[str, int]:
        """How many lists of each kind Redis holds of this release, all 0 when it was never begun.

        Raises InfrastructureFault.
        """
        with _release_errors():
            meta: Any = self._client.hgetall(release_meta(release_id))
        counted = {}
        for kind, short in _SHORT_NAMES.items():
            buckets = int(meta.get(b"user_buckets" if kind == USERS else b"item_buckets", 0))
            names = [("HLEN", release_bucket(release_id, short, bucket)) for bucket in range(buckets)]
            starts = range(0, len(names), _PIPELINE)
            counted[kind] = sum(sum(self._send(names[start : start + _PIPELINE])) for start in starts)
        return counted

    def with_lists(self) -> dict[str, bool]:
        """Every release of which Redis holds lists, and whether they are retired (will expire).

        Raises InfrastructureFault.
        """
        with _release_errors():
            names = [name.decode() for name in self._client.scan_iter(release_meta("*"), count=1000)]
        times: list[Any] = self._send([("PTTL", name) for name in names])
        ids = [name.removeprefix("rel:").removesuffix(":meta") for name in names]
        return {one: ttl >= 0 for one, ttl in sorted(zip(ids, times, strict=True)) if ttl != -2}

    def forget_user(self, user: bytes, release_ids: Iterable[str] | None = None) -> int:
        """Remove a user's nightly record, by her keyed hash, from these releases, by default from all that have lists.

        A field without content takes its place, so that the release still counts as many records as it was published
        with; publishing it again and removing her again does no harm. Returns how many records went. To find all
        releases every key is looked at. Raises InfrastructureFault.
        """
        named = self.with_lists() if release_ids is None else release_ids
        buckets = {release_id: self.user_buckets(release_id) for release_id in named}
        names = [release_bucket(one, "u", _bucket_of(user, count)) for one, count in buckets.items() if count]
        with _release_errors():
            return sum(FORGET_RECORD.run(self._client, [name], [user]) for name in names)

    def published(self) -> list[str]:
        """The releases that were given all traffic, newest first. Raises InfrastructureFault."""
        with _release_errors():
            names: Any = self._client.lrange(PUBLISHED, 0, -1)
        return [name.decode() for name in names]

    def set_published(self, release_ids: Sequence[str]) -> None:
        """Replace that history whole. Raises InfrastructureFault."""
        with _release_errors():
            pipeline = self._client.pipeline(transaction=True)
            pipeline.delete(PUBLISHED)
            if release_ids:
                pipeline.rpush(PUBLISHED, *release_ids)
            pipeline.execute()

    def _each_key(self, release_id: str, command: Callable[[str], tuple[Argument, ...]]) -> None:
        with _release_errors():
            meta: Any = self._client.hgetall(release_meta(release_id))
        if not meta:
            return
        names = [release_bucket(release_id, "u", bucket) for bucket in range(int(meta[b"user_buckets"]))]
        for kind in ITEM_KINDS:
            names += [release_bucket(release_id, kind, bucket) for bucket in range(int(meta[b"item_buckets"]))]
        names.append(release_meta(release_id))
        for start in range(0, len(names), _PIPELINE):
            self._send([command(name) for name in names[start : start + _PIPELINE]])

    def _fetch(self, commands: Sequence[tuple[Argument, ...]]) -> list[bytes | None]:
        return self._send(commands) if commands else []

    def _send(self, commands: Sequence[tuple[Argument, ...]]) -> list[Any]:
        with _release_errors():
            return send_pipelined(self._client, commands)


def nightly_command(release_id: str, user_buckets: int, user: bytes) -> tuple[Argument, ...]:
    """The command that reads one nightly record, to ride in another pipelined trip."""
    return ("HGET", release_bucket(release_id, "u", _bucket_of(user, user_buckets)), user)


def item_list_command(release_id: str, kind: str, index: int) -> tuple[Argument, ...]:
    """The command that reads one item's list; `kind` is one of `ITEM_KINDS`."""
    return ("HGET", release_bucket(release_id, _SHORT_NAMES[kind], index // RELEASE_BUCKET_SIZE), index)


def _buckets(count: int) -> int:
    return max(1, -(-count // RELEASE_BUCKET_SIZE))


def _bucket_of(key: bytes | int, user_buckets: int) -> int:
    if isinstance(key, int):
        return key // RELEASE_BUCKET_SIZE
    return int.from_bytes(key[:8], "little") % user_buckets


@contextmanager
def _release_errors() -> Iterator[None]:
    try:
        yield
    except ResponseError as error:
        if str(error).startswith("MARKMOVED"):
            raise MarkMoved(str(error)) from error
        raise InfrastructureFault(f"the release store refused a command: {error}") from error
    except RedisError as error:
        raise InfrastructureFault(f"the release store does not answer: {error}") from error
