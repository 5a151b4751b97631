"""Bodies of rows of the log: events as they came, and what redaction has left of an erased user's."""

from __future__ import annotations

from typing import Final

import msgspec

from shared.errors import InvalidEvent
from shared.events import BEHAVIOUR, Event, EventType, decode_event

_REDACTED: Final = msgspec.json.Decoder(Event)
_MAY_BE_REDACTED: Final = BEHAVIOUR | {EventType.PREFERENCES_SET}


def decode_logged(body: bytes) -> Event:
    """As `decode_event`; a redacted row's event comes back too, with neither user nor event id. Raises InvalidEvent."""
    try:
        return decode_event(body)
    except InvalidEvent:
        left = _redacted(body)
        if left is None:
            raise
        return left


def is_redacted(event: Event) -> bool:
    """Whether the event's user was erased: it tells nothing but what happened to its item."""
    return not event.event_id


def _redacted(body: bytes) -> Event | None:
    try:
        event = _REDACTED.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return event if is_redacted(event) and event.user_id is None and event.event_type in _MAY_BE_REDACTED else None
