"""Receipts of erasures: what was promised to a user who asked to be forgotten, and how far it has come.

A receipt is one blob, `lake/erasures/<receipt>.json`, and names its user by the keyed hash alone. While something of
it is still to be done, a small blob of the same name lies in `lake/open_erasures/`, so that whoever finishes receipts
need not read them all. The receipt is there before the first copy of the erasure is, so none is ever left half done.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from shared.errors import CorruptRecord, LakeConflict
from shared.events import Event, EventType, UserId, from_ms, keyed_user
from shared.ports import BlobStore

ERASURES_FOLDER: Final = "lake/erasures/"
OPEN_FOLDER: Final = "lake/open_erasures/"

MINUTE_MS: Final = 60_000
HOUR_MS: Final = 60 * MINUTE_MS
DAY_MS: Final = 24 * HOUR_MS

_RECEIPT_ID = re.compile(r"[0-9a-f]{32}").fullmatch
_TRIES = 20


class StoreLine(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """When one store was (`done_at`) or will be (`due_at`) rid of the user, epoch ms, and one sentence about how."""

    detail: str
    done_at: int | None = None
    due_at: int | None = None


class ErasurePlace(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A partition that may hold the user; `acknowledged_at` (epoch ms) is when its log took the erasure.

    `sequence` is the erasure's there, None where the broker does not tell.
    """

    source: str
    partition: int
    acknowledged_at: int | None = None
    sequence: int | None = None


class Receipt(Struct, frozen=True, kw_only=True):
    """One erasure. `erased_at` names it in every store: what took effect later is another user's.

    `swept_at` is when what nobody folds or serves any more was looked through for her: old state versions and releases.
    """

    receipt: str
    user_key: str
    erased_at: int
    requested_at: int
    places: tuple[ErasurePlace, ...]
    stores: Mapping[str, StoreLine]
    swept_at: int | None = None

    @property
    def subject(self) -> UserId:
        """Its user as the fold and the stores call her."""
        return keyed_user(self.user_key)

    def event(self) -> Event:
        """The erasure as every partition's log gets it; sent twice to one of them it is a duplicate."""
        return Event(
            event_id=f"erasure-{self.receipt}",
            event_type=EventType.USER_ERASED,
            occurred_at=from_ms(self.erased_at),
            changes={"user_key": self.user_key, "receipt": self.receipt},
        )


STORES: Final[Mapping[str, tuple[int, str]]] = {
    "state": (2 * MINUTE_MS, "Each partition folds its own copy of the erasure; until then her state is not read."),
    "overlay": (2 * MINUTE_MS, "What was acknowledged and not yet folded; from here on no page knows her."),
    "nightly_record": (2 * MINUTE_MS, "Her list and vector in every release whose lists stand in Redis."),
    "landing": (5 * MINUTE_MS, "Rows from before the erasure leave the landing streams for sealed files each minute."),
    "lake": (2 * DAY_MS, "The next night leaves of her rows what counts for items, and no id."),
    "sealed_files": (2 * DAY_MS, "The next night takes them into the lake and deletes those that held her at once."),
    "exposures": (2 * DAY_MS, "The next night takes her pages out of the exposure files."),
    "training_data": (2 * DAY_MS, "The next night makes interactions, candidates and training set without her."),
    "dvc_cache": (2 * DAY_MS, "DVC's cache keeps nothing; what stages made of her the next night makes without her."),
    "coming_releases": (2 * DAY_MS, "No release made by the next night, or a later one, is built from her rows."),
    "worker_memory": (15 * MINUTE_MS, "Preferences that a worker holds for an outage are forgotten after 15 minutes."),
    "broker_log": (
        7 * DAY_MS,
        "The embedded log forgets records once they are sealed; Kafka and Event Hubs when their retention ends.",
    ),
    "event_id_ring": (
        DAY_MS,
        "64-bit hashes of her events' ids tell a repeated event for a day; then they match nothing.",
    ),
    "append_only_file": (
        2 * DAY_MS,
        "Redis' own files keep what was deleted until they are rewritten; the night asks for it where it may.",
    ),
}
"""Every store that may hold something of a user: how long after the erasure it is due (ms), and how it comes about."""


def new_receipt(receipt: str, user_key: str, erased_at: int, places: tuple[ErasurePlace, ...]) -> Receipt:
    """A receipt of which nothing is done yet; `receipt` is 32 hexadecimal digits that nobody can guess."""
    stores = {name: StoreLine(detail=detail, due_at=erased_at + ms) for name, (ms, detail) in STORES.items()}
    return Receipt(
        receipt=receipt,
        user_key=user_key,
        erased_at=erased_at,
        requested_at=erased_at,
        places=places,
        stores=stores,
    )


def open_receipt(blobs: BlobStore, receipt: Receipt) -> None:
    """Write it down before anything is done. Raises InfrastructureFault."""
    blobs.write(OPEN_FOLDER + receipt.receipt, str(receipt.requested_at).encode())
    blobs.write(_name(receipt.receipt), _ENCODER.encode(receipt))


def withdraw_receipt(blobs: BlobStore, receipt: str) -> None:
    """Forget a receipt of which nothing was done. Raises InfrastructureFault."""
    blobs.delete(_name(receipt))
    blobs.delete(OPEN_FOLDER + receipt)


def read_receipt(blobs: BlobStore, receipt: str) -> Receipt | None:
    """The receipt, None where there is none of this id. Raises InfrastructureFault, CorruptRecord."""
    body = _stored(blobs, receipt)
    return None if body is None else _decode(receipt, body)


def change_receipt(blobs: BlobStore, receipt: str, change: Callable[[Receipt], Receipt]) -> Receipt | None:
    """Replace a receipt by what `change` makes of it, whoever else changes it meanwhile; None where there is none.

    Raises:
        LakeConflict: others changed it again and again.
        InfrastructureFault, CorruptRecord: as `read_receipt`.
    """
    for _ in range(_TRIES):
        held = _stored(blobs, receipt)
        if held is None:
            return None
        before = _decode(receipt, held)
        after = change(before)
        if after == before or blobs.replace(_name(receipt), _ENCODER.encode(after), held):
            return after
    raise LakeConflict(f"the receipt {receipt} is changed again and again by others; the next run goes on")


def mark_done(blobs: BlobStore, receipt: str, name: str, done_at: int, detail: str | None = None) -> Receipt | None:
    """Say of one store that it is rid of the user since `done_at` (epoch ms); the first instant told stands.

    Raises as `change_receipt`, and KeyError for a store nobody knows.
    """

    def change(held: Receipt) -> Receipt:
        line = held.stores[name]
        if line.done_at is not None:
            return held
        told = StoreLine(detail=detail or line.detail, done_at=done_at)
        return replace(held, stores={**held.stores, name: told})

    return change_receipt(blobs, receipt, change)


def open_receipts(blobs: BlobStore) -> list[str]:
    """The ids of the receipts that are not closed. Raises InfrastructureFault."""
    found = (name.removeprefix(OPEN_FOLDER) for name in blobs.names(OPEN_FOLDER))
    return [name for name in found if _RECEIPT_ID(name)]


def close_receipt(blobs: BlobStore, receipt: str) -> None:
    """Nothing of it is left to be done. Raises InfrastructureFault."""
    blobs.delete(OPEN_FOLDER + receipt)


def all_receipts(blobs: BlobStore) -> list[str]:
    """The ids of all receipts there ever were. Raises InfrastructureFault."""
    found = (name.removeprefix(ERASURES_FOLDER).removesuffix(".json") for name in blobs.names(ERASURES_FOLDER))
    return [name for name in found if _RECEIPT_ID(name)]


def _name(receipt: str) -> str:
    return f"{ERASURES_FOLDER}{receipt}.json"


def _stored(blobs: BlobStore, receipt: str) -> bytes | None:
    if not _RECEIPT_ID(receipt):
        return None
    try:
        return blobs.read(_name(receipt))
    except FileNotFoundError:
        return None


def _decode(receipt: str, body: bytes) -> Receipt:
    try:
        return _DECODER.decode(body)
    except msgspec.DecodeError as error:
        raise CorruptRecord(f"{_name(receipt)} cannot be read ({error}); restore it from a copy") from error


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Receipt)
