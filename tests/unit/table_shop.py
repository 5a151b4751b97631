"""A shop's own table as tests write it: German, with an item table beside it, and what the lake holds afterwards."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from batch.ingest_events import main
from shared.adapters.folder_blob import FolderBlobStore
from shared.events import BEHAVIOUR, Event, EventType, event_from_fields
from shared.ingest.lake import LakeManifest, events_of_table, read_manifest, read_rows

MAPPING = """
[shop]
name = "Laden"
time_zone = "Europe/Berlin"
currency = "EUR"
bought_window_days = 7

[events]
separator = ";"
decimal = ","
category_separator = " > "
time_format = ["%d.%m.%Y %H:%M:%S", "iso", "epoch_s"]

[events.columns]
time = "Zeit"
user = "Kunde"
item = "Artikel"
event = "Aktion"
price = "Preis"
quantity = "Menge"
order = "Bestellung"
title = "Titel"
category = "Kategorie"

[events.names]
gesehen = "view"
Korb = "cart"
gekauft = "purchase"
Suche = "ignore"

[items]
decimal = ","
category_separator = "/"
attributes = ["farbe"]

[items.columns]
id = "id"
title = "name"
categories = "pfad"
price = "preis"
stock = "bestand"
hidden = "versteckt"
arrived_at = "seit"
"""
HEADER = "Zeit;Aktion;Artikel;Titel;Kategorie;Preis;Menge;Kunde;Bestellung\n"
GOOD = (
    "27.10.2024 10:00:00;gesehen;A-1;Teekanne;Küche > Kannen;12,50;;k1;\n"
    "27.10.2024 10:00:05;Korb;A-1;Teekanne;Küche > Kannen;12,50;1;k1;\n"
    "2024-10-27T09:01:00Z;gekauft;A-1;Teekanne;Küche > Kannen;12,50 €;2;k1;B7\n"
    "1730019720;gesehen;B/2;;;9,99;;k2;\n".replace("B/2", "B-2")
)


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


def ingest(path: Path, mapping: Path, out: Path, *more: str) -> int:
    return main(["--format", "table", "--path", str(path), "--mapping", str(mapping), "--out", str(out), *more])


def manifest_of(out: Path) -> LakeManifest:
    manifest = read_manifest(FolderBlobStore(out))
    assert manifest is not None
    return manifest


def events_of(out: Path) -> list[Event]:
    """The lake's events in time order, each as it would pass the API."""
    found = [event for event in events_of_table(read_rows(FolderBlobStore(out))) if event is not None]
    for event in found:
        fields = {name: getattr(event, name) for name in event.__struct_fields__ if getattr(event, name) is not None}
        event_from_fields(fields)
    return sorted(found, key=lambda event: (event.occurred_at, event.event_type is not EventType.ITEM_UPDATED))


def behaviour_of(out: Path) -> list[Event]:
    return [event for event in events_of(out) if event.event_type in BEHAVIOUR]


def rejects_of(out: Path, behind: str = "") -> list[dict[str, str]]:
    (source,) = manifest_of(out).sources
    text = (out / "lake" / "rejects" / f"{source.name}{behind}.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(io.StringIO(text)))


def as_rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text), delimiter=";"))
