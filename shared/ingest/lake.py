"""The lake: reading its rows, and the sealed files that become them.

Parquet and its Arrow types are imported when first needed: the request path starts without them.
"""

from __future__ import annotations

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

if TYPE_CHECKING:
    from shared.ingest.lake_history import publish_history
    from shared.ingest.lake_table import LAKE_SCHEMA
else:

    def __getattr__(name: str) -> object:
        if name == "LAKE_SCHEMA":
            from shared.ingest.lake_table import LAKE_SCHEMA  # noqa: PLC0415 - see the module's docstring

            return LAKE_SCHEMA
        if name == "publish_history":
            from shared.ingest.lake_history import publish_history  # noqa: PLC0415 - see the module's docstring

            return publish_history
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "LAKE_SCHEMA",
    "FileEntry",
    "LakeManifest",
    "ShopSettings",
    "SourceEntry",
    "landing_line",
    "parse_landing_line",
    "publish_history",
    "read_manifest",
    "write_manifest",
]
