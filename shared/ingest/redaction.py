"""What is left of an erased user's rows: coordinates, item, type and times; nothing that names or links her."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from shared.events import EventType, keyed_user
from shared.features.shard import RING_SPAN_MS
from shared.ingest.erased_users import (
    CLOCKS_APART_MS,
    ErasedUsers,
    ErasureCopy,
    KeyOf,
    erasure_of,
    fresh_erasures,
    read_erasures,
)
from shared.ingest.lake_files import read_file
from shared.ingest.lake_manifest import LakeManifest
from shared.ingest.lake_table import events_of_table
from shared.ports import BlobStore, Verdict

ERASED: Final = "erased"
"""The reason of a dead row whose body went with its user."""

MATCHED_BY: Final = (
    "source", "partition", "sequence", "enqueued_at", "verdict", "event_type", "occurred_at", "user_id", "body",
)  # fmt: skip
"""What must be known of a row to say whether it goes."""

_PERSONAL: Final = ("event_id", "user_id", "session_id", "recommendation_id", "context", "changes", "body")
_VALUES_IN_BODY: Final = re.compile(rb'(?=("(?:[^"\\]|\\.)*"))|(?<!\d)(?=(-?\d+))')
"""From each quotation mark to the next, as which of them opens a text cannot be told of a body that is cut."""
_USER_ERASED: Final = pa.array([EventType.USER_ERASED.value])
_NEVER: Final = np.iinfo(np.int64).min

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Redaction:
    """Which rows go: what took effect up to the user's erasure; and in a partition, what stands before its copy of it.

    The latter holds where the copy came within an hour of its instant: the clocks of who erased and of the broker
    differ, and the fold of the copy leaves nothing of what came before it. Duplicates of what goes can only be told by
    what has gone, so hers of the day after go too; they changed nothing.
    """

    users: ErasedUsers
    below: Mapping[tuple[str, int], Mapping[str, int]] = field(default_factory=dict)

    @classmethod
    def of(cls, users: ErasedUsers, copies: Iterable[ErasureCopy]) -> Redaction:
        """Of users, and of those copies of their newest erasure that are at hand."""
        below: dict[tuple[str, int], dict[str, int]] = {}
        for copy in copies:
            key, at = copy.entry.user_key, copy.entry.erased_at
            if at == users.erased_at.get(key) and copy.enqueued_at - at <= CLOCKS_APART_MS:
                held = below.setdefault((copy.source, copy.partition), {})
                held[key] = min(copy.sequence, held.get(key, copy.sequence))
        return cls(users, below)

    def mask(self, rows: pa.Table) -> Mask:
        """bool[n]: the rows of a lake table (`MATCHED_BY`; without `body` nothing of dead letters) that go."""
        mask = np.zeros(rows.num_rows, dtype=np.bool_)
        if not self.users:
            return mask
        mask |= self._undecoded(rows)
        keys, codes = _erased_codes(rows, self.users)
        mine = codes >= 0
        if not mine.any():
            return mask
        until = np.array([self.users.erased_at[key] for key in keys], dtype=np.int64)[codes[mine]]
        enqueued_at = _numbers(rows, "enqueued_at")[mine]
        goes = np.minimum(_numbers(rows, "occurred_at")[mine], enqueued_at) <= until
        goes |= self._before_the_copy(rows, keys, codes, mine)
        # The ring of event ids, which knew that it had seen them, goes with the rows that it had seen.
        duplicate = np.asarray(pc.equal(rows["verdict"], Verdict.DUPLICATE.value))[mine]
        goes |= duplicate & (enqueued_at <= until + RING_SPAN_MS + CLOCKS_APART_MS)
        # An erasure stays, in keyed form.
        mask[mine] |= goes & ~_erasures(rows)[mine]
        return mask

    def _before_the_copy(self, rows: pa.Table, keys: Sequence[str], codes: npt.NDArray[np.int64], mine: Mask) -> Mask:
        goes = np.zeros(int(mine.sum()), dtype=np.bool_)
        if not self.below:
            return goes
        sources = np.asarray(rows["source"].filter(pa.array(mine)))
        partitions, sequences = _numbers(rows, "partition")[mine], _numbers(rows, "sequence")[mine]
        for (source, partition), first in self.below.items():
            limits = np.array([first.get(key, _NEVER) for key in keys], dtype=np.int64)[codes[mine]]
            goes |= (sources == source) & (partitions == partition) & (sequences < limits)
        return goes

    def _undecoded(self, rows: pa.Table) -> Mask:
        """Dead rows whose bytes name an erased user; when that took effect cannot be told, so they go."""
        mask = np.zeros(rows.num_rows, dtype=np.bool_)
        if "body" not in rows.schema.names or rows["body"].null_count == rows.num_rows:
            return mask
        bodies = rows["body"]
        for place in np.flatnonzero(np.asarray(pc.is_valid(bodies))).tolist():
            mask[place] = bool(self.users.among(_users_named(bodies[place].as_py())))
        return mask


def redact(rows: pa.Table, redaction: Redaction) -> tuple[pa.Table, Mask]:
    """A whole lake table without what goes, and which rows that changed; erasures that hold an id become keyed ones."""
    mask = redaction.mask(rows)
    if mask.any():
        gone = pa.array(mask)
        for name in _PERSONAL:
            rows = _with(rows, name, pc.if_else(gone, pa.scalar(None, rows.schema.field(name).type), rows[name]))
        dead = pc.and_(gone, pc.equal(rows["verdict"], Verdict.DEAD.value))
        rows = _with(rows, "reason", pc.if_else(dead, pa.scalar(ERASED), rows["reason"]))
    return _keyed_erasures(rows, redaction.users.key_of, mask)


def together(rows: pa.Table, users: ErasedUsers) -> pa.Table:
    """The rows with `keyed_user` in the place of the id of everybody who was erased, in her erasures too.

    So all that is a person's stands under one name, whichever way her rows name her. Needs user_id, event_type and
    changes; a table where nobody was erased comes back as it is.
    """
    if not users:
        return rows
    coded = _encoded(rows["user_id"])
    ids = coded.dictionary.to_pylist()
    erased = users.among(ids)
    named = [keyed_user(erased[one]) if one in erased else one for one in ids] if erased else ids
    keyed = _erasures(rows) & np.asarray(pc.is_null(rows["user_id"]))
    if not erased and not keyed.any():
        return rows
    column = pa.array(named, pa.string()).take(coded.indices)
    if keyed.any():
        said = rows["changes"].filter(pa.array(keyed)).to_pylist()
        names = [None if one is None else keyed_user(msgspec.json.decode(one)["user_key"]) for one in said]
        column = pc.replace_with_mask(column, pa.array(keyed), pa.array(names, pa.string()))
    return _with(rows, "user_id", column)


def erasures_of_table(rows: pa.Table, key_of: KeyOf) -> list[ErasureCopy]:
    """The accepted erasures of a whole lake table, in its order."""
    erasures = pc.equal(rows["event_type"], EventType.USER_ERASED.value)
    chosen = rows.filter(pc.and_(erasures, pc.equal(rows["verdict"], Verdict.ACCEPTED.value)))
    coordinates = [chosen[name].to_pylist() for name in ("source", "partition", "sequence", "enqueued_at")]
    return [
        ErasureCopy(erasure_of(event, key_of), source, partition, sequence, enqueued_at)
        for source, partition, sequence, enqueued_at, event in zip(*coordinates, events_of_table(chosen), strict=True)
        if event is not None
    ]


def erasures_unseen(blobs: BlobStore, manifest: LakeManifest | None, key_of: KeyOf) -> list[ErasureCopy]:
    """The accepted erasures in files that no compaction has looked into: new history, or an older lake's.

    Raises LakeConflict, FileNotFoundError.
    """
    found: list[ErasureCopy] = []
    for entry in () if manifest is None else manifest.files:
        if entry.cleared < 0 and _erasures(read_file(blobs, entry, ("event_type",), as_codes=("event_type",))).any():
            found += erasures_of_table(read_file(blobs, entry), key_of)
    return found


def redaction_of_lake(blobs: BlobStore, manifest: LakeManifest | None, key_of: KeyOf) -> Redaction:
    """Of everybody whom the lake, compacted or only sealed, says was erased. Raises LakeConflict."""
    copies = [*erasures_unseen(blobs, manifest, key_of), *fresh_erasures(blobs, manifest, key_of)]
    entries = [*read_erasures(blobs, manifest), *(copy.entry for copy in copies)]
    return Redaction.of(ErasedUsers.of(entries, key_of), copies)


def without_erased(rows: pa.Table, redaction: Redaction) -> pa.Table:
    """A whole lake table as the next compaction leaves it, erased users under their keyed hash."""
    return together(redact(rows, redaction)[0], redaction.users) if redaction.users else rows


def _keyed_erasures(rows: pa.Table, key_of: KeyOf, mask: Mask) -> tuple[pa.Table, Mask]:
    named = _erasures(rows) & np.asarray(pc.is_valid(rows["user_id"]))
    if not named.any():
        return rows, mask
    here = pa.array(named)
    chosen = rows.filter(here)
    entries = [erasure_of(event, key_of) for event in events_of_table(chosen) if event is not None]
    changes = [msgspec.json.encode({"user_key": one.user_key, "receipt": one.receipt}).decode() for one in entries]
    # The id goes too, who knows what a shop puts into it; but the fold tells erasures apart by it.
    values = {"changes": changes, "event_id": [key_of(f"event {one}") for one in chosen["event_id"].to_pylist()]}
    for name in _PERSONAL:
        kind = rows.schema.field(name).type
        new = pa.array(values[name], kind) if name in values else pa.nulls(chosen.num_rows, kind)
        rows = _with(rows, name, pc.replace_with_mask(rows[name].combine_chunks(), here, new))
    dead = pc.and_(here, pc.equal(rows["verdict"], Verdict.DEAD.value))
    return _with(rows, "reason", pc.if_else(dead, pa.scalar(ERASED), rows["reason"])), mask | named


def _erasures(rows: pa.Table) -> Mask:
    return np.asarray(pc.is_in(rows["event_type"], value_set=_USER_ERASED))


def _erased_codes(rows: pa.Table, users: ErasedUsers) -> tuple[list[str], npt.NDArray[np.int64]]:
    """The keys of erased users, and of each row the place of its user's among them, -1 for everybody else."""
    coded = _encoded(rows["user_id"])
    ids = coded.dictionary.to_pylist()
    erased = users.among(ids)
    place_of = np.full(len(ids) + 1, -1, dtype=np.int64)
    if not erased:
        return [], place_of[np.zeros(rows.num_rows, dtype=np.int64)]
    keys = list(dict.fromkeys(erased.values()))
    places = {key: place for place, key in enumerate(keys)}
    for place, user_id in enumerate(ids):
        if user_id in erased:
            place_of[place] = places[erased[user_id]]
    indices = np.asarray(pc.fill_null(coded.indices, len(ids)), dtype=np.int64)
    return keys, place_of[indices]


def _encoded(column: pa.ChunkedArray) -> pa.DictionaryArray:
    whole = pa.chunked_array(column.chunks, column.type).combine_chunks()
    return whole if isinstance(whole, pa.DictionaryArray) else whole.dictionary_encode()


def _users_named(body: bytes) -> set[str]:
    """Whatever in bytes that are no event may be somebody's id: every text and number of JSON, be it whole or not."""
    found = set()
    for match in _VALUES_IN_BODY.finditer(body):
        text: bytes = match[1] or match[2]
        try:
            found.add(str(json.loads(text.decode("utf-8", "replace"))))
        except ValueError:
            continue  # an escape that is none: no id that anybody has
    return found


def _numbers(rows: pa.Table, name: str) -> npt.NDArray[np.int64]:
    return np.asarray(pc.fill_null(rows[name], 0), dtype=np.int64)


def _with(rows: pa.Table, name: str, column: pa.Array | pa.ChunkedArray) -> pa.Table:
    place = rows.schema.get_field_index(name)
    return rows.set_column(place, rows.schema.field(place), column)
