"""PUT preferences without HTTP: a preferences_set event like any other, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from functions.event_intake import EventIntake, Fate
from shared.errors import BrokerUnavailable, InvalidEvent
from shared.events import Event, EventType, Preferences, UserId, encode_event, from_ms


class PreferenceSetter:
    """Makes the event and posts it."""

    def __init__(self, intake: EventIntake, clock: Callable[[], int], new_id: Callable[[], str]) -> None:
        """`clock` tells epoch ms; `new_id` gives an event id that never comes again."""
        self._intake = intake
        self._clock = clock
        self._new_id = new_id

    def set(self, user_id: str, wanted: Preferences) -> str:
        """Replace what she asked for and return the event's id, once the broker log has acknowledged it.

        Raises:
            InvalidEvent: the preferences make no sense, or are too long for an event.
            BrokerUnavailable: it was not acknowledged.
        """
        event = Event(
            event_id=self._new_id(),
            event_type=EventType.PREFERENCES_SET,
            occurred_at=from_ms(self._clock()),
            user_id=UserId(user_id),
            changes=msgspec.to_builtins(wanted),
        )
        outcome = self._intake.accept(b"[" + encode_event(event) + b"]")[0]
        if outcome.fate is Fate.REJECTED:
            raise InvalidEvent(f"these preferences cannot be taken: {outcome.reason}")
        if outcome.fate is Fate.UNACKNOWLEDGED:
            raise BrokerUnavailable("the broker log did not acknowledge the preferences; send them again")
        return event.event_id
