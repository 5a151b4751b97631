"""The feature state in Redis, as its one writer sees it: read, commit, landing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, Final

from redis import Redis
from redis.exceptions import RedisError, ResponseError

from shared.adapters.keys import USER_SHARD_TTL_MS, PartitionKeys, item_field, user_key
from shared.adapters.landing_codec import decode_mark, decode_rows, encode_mark, encode_rows, last_of, stream_id
from shared.adapters.redis_connection import Argument
from shared.adapters.redis_load import PartitionLoad
from shared.adapters.redis_scripts import COMMIT, READ
from shared.errors import MarkMoved, StateUnavailable
from shared.ports import (
    LandingRow,
    LogWrite,
    Mark,
    PartitionCommit,
    PartitionState,
    Touched,
    UserWrite,
    VersionShards,
)

_PAGE_COMMITS: Final = 10
_NO_LOG: Final = LogWrite(None, (), {})


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
            names += [keys.mark(version), keys.items(version), *keys.users(version, hashes)]
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
        log = commit.log or _NO_LOG
        for row, following in pairwise(log.rows):
            if last_of(row) >= following.sequence:
                raise StateUnavailable(
                    f"DISORDER: row {following.sequence} after row {last_of(row)}; nothing is written"
                )
        products = _flat_fields(log.products)
        arguments: list[Argument] = [
            int(commit.log is not None),
            encode_mark(log.mark_before),
            encode_mark(commit.mark_after),
            stream_id(commit.mark_after.sequence),
            stream_id(last_of(log.rows[0])) if log.rows else "",
            encode_rows(log.rows) if log.rows else b"",
            USER_SHARD_TTL_MS,
            len(products),
            *products,
        ]
        for version, write in commit.versions.items():
            names += [keys.mark(version), keys.items(version), keys.feed(version)]
            expiring = [user for user, one in write.users.items() if one.expires]
            users = [*expiring, *(user for user, one in write.users.items() if not one.expires)]
            names += keys.users(version, (user_key(user, self._secret) for user in users))
            counters = _flat_fields(write.items)
            arguments += [
                encode_mark(write.mark_before),
                0 if write.mark_before is None else write.mark_before.sequence + 1,
                b"".join(map(item_field, write.touched)),
                len(counters),
                len(users),
                len(expiring),
                *counters,
                *(write.users[user].shard for user in users),
            ]
        with state_errors():
            COMMIT.run(self._client, names, arguments)

    def landing_rows(self, source: str, partition: int, first: int, last: int) -> list[LandingRow]:
        """See StateStore."""
        rows: list[LandingRow] = []
        at = stream_id(first)
        while commits := self._commits(source, partition, at):
            rows += [row for one in commits for row in one if last_of(row) >= first and row.sequence <= last]
            end = last_of(commits[-1][-1])
            if end >= last:
                break
            at = stream_id(end + 1)
        return rows

    def oldest_landing_rows(self, source: str, partition: int, limit: int) -> list[LandingRow]:
        """See StateStore."""
        rows: list[LandingRow] = []
        at = "-"
        while len(rows) < limit and (commits := self._commits(source, partition, at)):
            for one in commits:
                if len(rows) < limit:
                    rows += one
            at = stream_id(last_of(commits[-1][-1]) + 1)
        return rows

    def trim_landing(self, source: str, partition: int, through: LandingRow) -> None:
        """See StateStore."""
        after = f"{last_of(through) + 1}-1"
        with state_errors():
            self._client.xtrim(PartitionKeys(source, partition).landing, minid=after, approximate=False)

    def _commits(self, source: str, partition: int, start: str) -> list[list[LandingRow]]:
        """A page of commits, from the one on that holds `start`: a commit stands under its last sequence."""
        with state_errors():
            entries: Any = self._client.xrange(PartitionKeys(source, partition).landing, min=start, count=_PAGE_COMMITS)
        return [decode_rows(source, partition, fields) for _, fields in entries]

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


def _flat_fields(values: Mapping[int, bytes]) -> list[Argument]:
    return [part for item, data in values.items() for part in (item_field(item), data)]
