"""The feature state in Redis, as its one writer sees it: read, commit, landing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from redis import Redis
from redis.exceptions import RedisError, ResponseError

from shared.adapters.keys import USER_SHARD_TTL_MS, PartitionKeys, item_field, user_key
from shared.adapters.landing_codec import decode_mark, decode_row, encode_mark, row_arguments, stream_id
from shared.adapters.redis_connection import Argument
from shared.adapters.redis_load import PartitionLoad
from shared.adapters.redis_scripts import COMMIT, READ
from shared.errors import MarkMoved, StateUnavailable
from shared.ports import (
    LandingRow,
    Mark,
    PartitionCommit,
    PartitionState,
    Touched,
    UserWrite,
    VersionShards,
    VersionWrite,
)


@contextmanager
def state_errors() -> Iterator[None]:
    """Tell a refusal by the mark from everything else that Redis may answer or fail to answer."""
    try:
        yield
    except ResponseError as error:
        if str(error).startswith("MARKMOVED"):
            raise MarkMoved(str(error)) from error
        raise StateUnavailable(f"the feature state refused a command: {error}") from error
    except RedisError as error:
        raise StateUnavailable(f"the feature state does not answer: {error}") from error


class RedisStateStore:
    """The StateStore port over one Redis; users are named by their id and stored under its keyed hash."""

    def __init__(self, client: Redis, user_secret: str) -> None:
        self._client = client
        self._secret = user_secret

    def read(self, source: str, partition: int, versions: Sequence[str], touched: Touched) -> PartitionState:
        """See StateStore."""
        keys = PartitionKeys(source, partition)
        hashes = [user_key(user, self._secret) for user in touched.users]
        names = [keys.log_mark, keys.catalogue]
        for version in versions:
            names += [keys.mark(version), keys.items(version), *(keys.user(version, user) for user in hashes)]
        items = [item_field(item) for item in touched.items]
        products = [item_field(item) for item in touched.products]
        with state_errors():
            answer = READ.run(self._client, names, [len(versions), len(hashes), len(items), *items, *products])
        log_mark, entries, *shards = answer
        return PartitionState(
            log_mark=decode_mark(log_mark),
            versions={
                version: VersionShards(
                    mark=decode_mark(mark),
                    users=dict(zip(touched.users, users, strict=True)),
                    items=dict(zip(touched.items, counters, strict=True)),
                )
                for version, (mark, counters, users) in zip(versions, shards, strict=True)
            },
            products=dict(zip(touched.products, entries, strict=True)),
        )

    def commit(self, commit: PartitionCommit) -> None:
        """See StateStore."""
        keys = PartitionKeys(commit.source, commit.partition)
        names = [keys.log_mark, keys.landing, keys.catalogue]
        log = commit.log
        arguments: list[Argument] = [
            int(log is not None),
            encode_mark(log.mark_before) if log else "",
            encode_mark(commit.mark_after),
            stream_id(commit.mark_after.sequence),
            len(commit.versions),
            len(log.rows) if log else 0,
        ]
        for row in log.rows if log else ():
            arguments += row_arguments(row)
        products = log.products if log else {}
        arguments.append(len(products))
        arguments += _flat_fields(products)
        for version, write in commit.versions.items():
            names += [keys.mark(version), keys.items(version), keys.feed(version)]
            names += [keys.user(version, user_key(user, self._secret)) for user in write.users]
            arguments += _version_arguments(write)
        with state_errors():
            COMMIT.run(self._client, names, arguments)

    def landing_rows(self, source: str, partition: int, first: int, last: int) -> list[LandingRow]:
        """See StateStore."""
        key = PartitionKeys(source, partition).landing
        rows: list[LandingRow] = []
        at = stream_id(first)
        while True:  # a row is stored under its last sequence: a range may start inside and end beyond
            page = self._range(source, partition, key, at, 1000)
            for row in page:
                if row.sequence > last:
                    return rows
                rows.append(row)
            if len(page) < 1000:
                return rows
            end = page[-1]
            at = stream_id((end.sequence if end.last_sequence is None else end.last_sequence) + 1)

    def oldest_landing_rows(self, source: str, partition: int, limit: int) -> list[LandingRow]:
        """See StateStore."""
        return self._range(source, partition, PartitionKeys(source, partition).landing, "-", limit)

    def trim_landing(self, source: str, partition: int, through: LandingRow) -> None:
        """See StateStore."""
        last = through.sequence if through.last_sequence is None else through.last_sequence
        with state_errors():
            self._client.xtrim(PartitionKeys(source, partition).landing, minid=f"{last + 1}-1", approximate=False)

    def _range(self, source: str, partition: int, key: str, start: str, limit: int) -> list[LandingRow]:
        with state_errors():
            entries: Any = self._client.xrange(key, min=start, count=limit)
        return [decode_row(source, partition, entry_id, fields) for entry_id, fields in entries]

    def marks(self, source: str, partition: int, version: str) -> tuple[Mark | None, Mark | None]:
        """The log's mark and the version's."""
        state = self.read(source, partition, [version], Touched())
        return state.log_mark, state.versions[version].mark

    def begin_load(self, source: str, partition: int, version: str, loader: str) -> None:
        """Take the load of a version over: from now on only who gives this token may load it."""
        with state_errors():
            PartitionLoad(self._client, source, partition, version, loader).begin()

    def load(
        self,
        source: str,
        partition: int,
        version: str,
        *,
        users: Mapping[str, UserWrite] | None = None,
        items: Mapping[int, bytes] | None = None,
        products: Mapping[int, bytes] | None = None,
        loader: str = "",
    ) -> None:
        """Write shards of a version that has no mark in this partition; finish with `finish_load`.

        Catalogue entries belong to the log: they are written only while the log has no mark here either. Writing the
        same shards again after an interruption does no harm.

        Raises:
            MarkMoved: the version has a mark: it is live, and only a commit may change it; or another backfill began
                after `loader` did.
        """
        load = PartitionLoad(self._client, source, partition, version, loader)
        with state_errors():
            load.users(self._secret, users or {})
            load.items(items or {})
            load.products(products or {})

    def finish_load(self, source: str, partition: int, version: str, mark: Mark, *, loader: str = "") -> None:
        """Say that everything up to `mark` is loaded: the version's mark, and the log's where it has none.

        Raises:
            MarkMoved: the version has a mark by now, or another backfill began after `loader` did.
        """
        with state_errors():
            PartitionLoad(self._client, source, partition, version, loader).finish(mark)


def _version_arguments(write: VersionWrite) -> list[Argument]:
    position = 0 if write.mark_before is None else write.mark_before.sequence + 1
    arguments: list[Argument] = [
        encode_mark(write.mark_before),
        position,
        b"".join(item_field(item) for item in write.touched),
        len(write.items),
        *_flat_fields(write.items),
        len(write.users),
    ]
    for user in write.users.values():
        arguments += [USER_SHARD_TTL_MS if user.expires else 0, user.shard]
    return arguments


def _flat_fields(values: Mapping[int, bytes]) -> list[Argument]:
    return [part for item, data in values.items() for part in (item_field(item), data)]
