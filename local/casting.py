"""Who the story is about: a customer of the shop with a history to recommend from, the same one every time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from shared.adapters.folder_blob import FolderBlobStore
from shared.errors import ConfigurationError
from shared.ingest.lake import read_manifest, read_rows

ACTIONS = (20, 150)
"""How much the heroine has done: enough to know her, not so much that a click could not change the picture."""
LEAST_PURCHASES = 3
RECENT_DAYS = 14
DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Customer:
    """A user of the ingested history; `last_at` in epoch ms."""

    user_id: str
    actions: int
    purchases: int
    last_at: int


def customers(data: Path) -> list[Customer]:
    """Every user of the lake's ingested history with what she did, by id. Raises ConfigurationError without one."""
    blobs = FolderBlobStore(data)
    manifest = read_manifest(blobs)
    history = [] if manifest is None else [source.name for source in manifest.sources if source.kind == "history"]
    if not history:
        raise ConfigurationError(f"there is no ingested history under {data}: run python -m batch.generate_shop")
    columns = ["user_id", "event_type", "occurred_at", "verdict"]
    rows: pa.Table = read_rows(blobs, columns=columns, sources=history)
    rows = rows.filter(pc.field("user_id").is_valid() & (pc.field("verdict") == "accepted"))
    bought = pc.cast(pc.equal(rows["event_type"], "purchase"), pa.int64())
    table = pa.table({"user_id": rows["user_id"], "bought": bought, "at": rows["occurred_at"]})
    grouped = table.group_by("user_id").aggregate([("bought", "count"), ("bought", "sum"), ("at", "max")])
    found = [
        Customer(row["user_id"], row["bought_count"], row["bought_sum"], row["at_max"]) for row in grouped.to_pylist()
    ]
    return sorted(found, key=lambda customer: customer.user_id)


def choose_customer(found: list[Customer]) -> Customer:
    """The busiest shopper who is still within the usual, bought a few times and was here lately.

    Where a shop has nobody like that, the one who did most. Raises ConfigurationError for a shop without users.
    """
    if not found:
        raise ConfigurationError("the shop has no customer: its history holds no event of a user")
    newest = max(customer.last_at for customer in found)
    usual = [
        customer
        for customer in found
        if ACTIONS[0] <= customer.actions <= ACTIONS[1]
        and customer.purchases >= LEAST_PURCHASES
        and customer.last_at > newest - RECENT_DAYS * DAY_MS
    ]
    return max(usual or found, key=lambda customer: (customer.actions, customer.user_id))
