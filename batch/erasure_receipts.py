"""What the night does for erasures beside the lake: exposures, records of replays, and the dates in the receipts."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from batch.erased_rejects import clear_rejects
from shared.ingest.dead_letters import REPLAYS_FOLDER, LetterId, read_record, write_record
from shared.ingest.erased_exposures import WRITTEN_AFTER_MS, clear_exposures
from shared.ingest.erased_users import KeyOf, read_erasures
from shared.ingest.erasures import Receipt, mark_done, open_receipts, read_receipt
from shared.ingest.lake import read_manifest, read_rows
from shared.ingest.redaction import ERASED
from shared.ports import BlobStore

_COORDINATES: Final = ("source", "partition", "sequence")


def clear_beside_lake(blobs: BlobStore, key_of: KeyOf, now: int, *, redacted: bool) -> int:
    """Take erased users out of exposures, records of replays and rejected rows; returns how many exposures went.

    `redacted` says that the compaction before found somebody; `now` is epoch ms. Raises LakeConflict, CorruptRecord.
    """
    entries = read_erasures(blobs, read_manifest(blobs))
    if redacted:
        rows = read_rows(blobs, columns=["source", "partition", "sequence", "reason"], keep=_erased_letters)
        _forget_replays(blobs, {LetterId(*one.values()) for one in rows.select(_COORDINATES).to_pylist()})
    clear_rejects(blobs, entries, key_of)
    return clear_exposures(blobs, entries, key_of, now)


def settle_receipts(
    blobs: BlobStore, stores: Collection[str], now: int, *, of_first: int | None = None, after: Collection[str] = ()
) -> int:
    """Mark these stores done at `now` (epoch ms) in each open receipt whose erasure the lake holds; how many those are.

    `of_first` takes only so many of the lake's erasures, as a stage's summary tells; `after` names stores that must
    have been done by then. Exposures wait until no worker still holds pages from before. Raises LakeConflict,
    CorruptRecord.
    """
    entries = read_erasures(blobs, read_manifest(blobs))[:of_first]
    held = {(one.user_key, one.erased_at) for one in entries}
    settled = 0
    for name in open_receipts(blobs):
        receipt = read_receipt(blobs, name)
        if receipt is None or (receipt.user_key, receipt.erased_at) not in held:
            continue
        if not all((receipt.stores[store].done_at or now + 1) <= now for store in after):
            continue
        for store in stores:
            if receipt.stores[store].done_at is None and _is_due(receipt, store, now):
                mark_done(blobs, name, store, now)
        settled += 1
    return settled


def _forget_replays(blobs: BlobStore, letters: Collection[LetterId]) -> None:
    """Records of replays name the letter's event id: of these letters no longer."""
    for name in blobs.names(REPLAYS_FOLDER):
        letter = LetterId.parse(name.removeprefix(REPLAYS_FOLDER).removesuffix(".json"))
        record = read_record(blobs, letter) if letter in letters else None
        if record is not None:
            write_record(blobs, letter, msgspec.structs.replace(record, event_id=""))


def _is_due(receipt: Receipt, store: str, now: int) -> bool:
    return store != "exposures" or now - receipt.erased_at >= WRITTEN_AFTER_MS


def _erased_letters(rows: pa.Table) -> pa.Table:
    return rows.filter(pc.field("reason") == ERASED)
