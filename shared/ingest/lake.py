"""The lake's public face: manifest, history, sealed files, reading.

What needs Arrow is imported when it is first asked for: the request path starts without it (0.2 s).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from shared.ingest.lake_manifest import (
    FileEntry,
    LakeManifest,
    ShopSettings,
    SourceEntry,
    read_manifest,
    write_manifest,
)
from shared.ingest.lake_rows import landing_line, parse_landing_line
from shared.ingest.lake_sealed import highest_sealed, write_sealed

if TYPE_CHECKING:
    from shared.ingest.lake_history import publish_history
    from shared.ingest.lake_reading import read_range, read_rows
    from shared.ingest.lake_table import EVENT_SCHEMA, LAKE_SCHEMA, events_of_table, landing_of_table
else:
    _WITH_ARROW = {
        "EVENT_SCHEMA": "lake_table",
        "LAKE_SCHEMA": "lake_table",
        "events_of_table": "lake_table",
        "landing_of_table": "lake_table",
        "publish_history": "lake_history",
        "read_range": "lake_reading",
        "read_rows": "lake_reading",
    }

    def __getattr__(name: str) -> object:
        if name not in _WITH_ARROW:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"shared.ingest.{_WITH_ARROW[name]}"), name)


__all__ = [
    "EVENT_SCHEMA",
    "LAKE_SCHEMA",
    "FileEntry",
    "LakeManifest",
    "ShopSettings",
    "SourceEntry",
    "events_of_table",
    "highest_sealed",
    "landing_line",
    "landing_of_table",
    "parse_landing_line",
    "publish_history",
    "read_manifest",
    "read_range",
    "read_rows",
    "write_manifest",
    "write_sealed",
]
