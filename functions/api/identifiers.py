"""What an id may look like, as the document tells it; functions/addressable_ids.py and shared/events.py check it.

A schema counts characters where the checks count bytes of UTF-8: 128 of the one may be more of the other.
"""

from __future__ import annotations

from typing import Any, Final

from shared.events import MAX_ID_BYTES

_REFUSED: Final = r"\x00-\x1f\x7f-\x9f/"

PLAIN_ID: Final[dict[str, Any]] = {"minLength": 1, "maxLength": MAX_ID_BYTES, "pattern": f"^[^{_REFUSED}]+$"}
"""Ids that stand in bodies alone."""
ADDRESSABLE_ID: Final[dict[str, Any]] = {
    "minLength": 1,
    "maxLength": MAX_ID_BYTES,
    "pattern": rf"^(?!\.{{1,2}}$)[^{_REFUSED}{{}}\ufffd]+$",
}
"""Users' and items', which stand in addresses."""
ID_LIST: Final[dict[str, Any]] = {
    "pattern": rf"^(?!(.*,)?\.{{1,2}}(,|$))[^{_REFUSED}{{}}\ufffd,]{{0,{MAX_ID_BYTES}}}"
    rf"(,[^{_REFUSED}{{}}\ufffd,]{{0,{MAX_ID_BYTES}}})*$"
}
"""Several, with commas between."""
