"""Log lines as JSON, one object a line, without personal data.

Messages of ours name no user. What an exception of another's making says may hold anything, so only its type and where
it came from are written, unless the level is DEBUG.
"""

from __future__ import annotations

import logging
import traceback
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import lru_cache
from types import TracebackType
from typing import Any, Final

import msgspec

from shared.errors import RecommndrError

REQUEST_ID: Final[ContextVar[str | None]] = ContextVar("request_id", default=None)
"""The id of the request being answered; it follows the request into threads."""
FIELDS: Final = "fields"
"""`log.info(message, extra={FIELDS: {...}})` adds members to the line."""
MOST_FRAMES: Final = 30


class JsonLines(logging.Formatter):
    """A record as one JSON object: at, level, logger, request_id, message, the record's fields, exception."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        return msgspec.json.encode(_members(record)).decode()


class TextLines(logging.Formatter):
    """The same for people."""

    def format(self, record: logging.LogRecord) -> str:
        """The line; the frames of an exception follow on lines of their own."""
        members = _members(record)
        head = [str(members.pop(name)) for name in ("at", "level", "logger")]
        exceptions = members.pop("exception", [])
        text = " ".join([*head, *(f"{name}={value}" for name, value in members.items() if name != "message")])
        lines = [f"{text}: {members['message']}"]
        for one in exceptions:
            lines += [f"  {one['type']}: {one.get('message', '')}", *(f"    {frame}" for frame in one["frames"])]
        return "\n".join(lines)


FORMATTERS: Final[dict[str, type[logging.Formatter]]] = {"json": JsonLines, "text": TextLines}


def write_log_lines(level: str, style: str) -> None:
    """Everything logged in this process goes out in one style (`json` or `text`), ours from `level` on.

    On Azure the host has put its handler there, and only what it writes changes.
    """
    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(logging.StreamHandler())
        root.setLevel(level)
    for handler in root.handlers:
        handler.setFormatter(FORMATTERS[style]())
    for package in ("functions", "shared", "local"):
        logging.getLogger(package).setLevel(level)
    logging.captureWarnings(capture=True)


def _members(record: logging.LogRecord) -> dict[str, Any]:
    members: dict[str, Any] = {
        "at": f"{_second_text(int(record.created))}.{int(record.msecs):03d}Z",
        "level": record.levelname.lower(),
        "logger": record.name,
    }
    request_id = REQUEST_ID.get()
    if request_id is not None:
        members["request_id"] = request_id
    members["message"] = record.getMessage().encode("utf-8", "replace").decode()
    members |= getattr(record, FIELDS, {})
    if record.exc_info and record.exc_info[1] is not None:
        members["exception"] = _exceptions(record.exc_info[1])
    return members


@lru_cache(maxsize=2)
def _second_text(epoch_s: int) -> str:
    return f"{datetime.fromtimestamp(epoch_s, UTC):%Y-%m-%dT%H:%M:%S}"


def _exceptions(raised: BaseException) -> list[dict[str, Any]]:
    """The exception and what it arose from, newest first."""
    found: list[dict[str, Any]] = []
    seen: set[int] = set()
    current: BaseException | None = raised
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        kind = type(current)
        told: dict[str, Any] = {"type": f"{kind.__module__}.{kind.__qualname__}"}
        if isinstance(current, RecommndrError) or logging.getLogger("shared").isEnabledFor(logging.DEBUG):
            told["message"] = str(current).encode("utf-8", "replace").decode()
        found.append({**told, "frames": _frames(current.__traceback__)})
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return found


def _frames(trace: TracebackType | None) -> list[str]:
    """File, line and function from the outermost to the innermost; no source, no values."""
    summary = traceback.StackSummary.extract(traceback.walk_tb(trace), lookup_lines=False)
    frames = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in summary]
    return frames if len(frames) <= MOST_FRAMES else [*frames[: MOST_FRAMES // 2], "...", *frames[-MOST_FRAMES // 2 :]]
