"""The way into the broker log, without HTTP: check each event, append the good ones, say what became of each."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import msgspec

from functions.addressable_ids import check_addressable
from functions.circuit import Circuit
from functions.metrics import Metrics
from functions.preferences.preference_keeper import PreferenceKeeper
from shared.errors import InfrastructureFault, InvalidEvent, RecommndrError
from shared.events import (
    FUTURE_LIMIT_MS,
    MAX_EVENT_BYTES,
    Event,
    EventType,
    Preferences,
    check_id,
    decode_event,
    encode_event,
)
from shared.features.overlay import Overlay, preferences_version
from shared.ports import Appended, EventLog

MOST_EVENTS: Final = 500
NOT_ACKNOWLEDGED: Final = "the broker log did not acknowledge it; send it again"


class Fate(StrEnum):
    """What became of a posted event."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    UNACKNOWLEDGED = "unacknowledged"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One event's fate; `event_id` is None where it could not be read."""

    index: int
    event_id: str | None
    fate: Fate
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class _Checked:
    """A valid event as it goes to the broker log."""

    event: Event
    body: bytes


class MalformedBatch(RecommndrError):
    """The body is no JSON at all."""


class _Envelope(msgspec.Struct, forbid_unknown_fields=True):
    events: list[msgspec.Raw]


class _Named(msgspec.Struct):
    event_id: str


_ARRAY = msgspec.json.Decoder(list[msgspec.Raw])
_ENVELOPE = msgspec.json.Decoder(_Envelope)
_NAMED = msgspec.json.Decoder(_Named)


class EventIntake:
    """Appends to the broker log; it never touches feature state."""

    def __init__(
        self,
        event_log: EventLog,
        source: str,
        *,
        keeper: PreferenceKeeper,
        circuit: Circuit,
        metrics: Metrics,
        clock: Callable[[], int],
    ) -> None:
        """`source` names the log's event source; `clock` tells epoch ms."""
        self._event_log = event_log
        self._source = source
        self._keeper = keeper
        self._circuit = circuit
        self._metrics = metrics
        self._clock = clock

    def accept(self, body: bytes) -> list[Outcome]:
        """The fate of each event of a JSON array, or of {"events": [...]}, in order.

        Raises:
            MalformedBatch: not JSON.
            InvalidEvent: JSON of another shape, no events, or more than 500.
            BrokerUnavailable: nothing was acknowledged.
        """
        return self.take(_batch_of(body))

    def take(self, events: Iterable[bytes | msgspec.Raw]) -> list[Outcome]:
        """The fate of each event, one JSON object each, in order.

        An event is accepted once the broker log has acknowledged it. One that is unacknowledged may or may not be in
        the log: sending it again with the same event_id counts it once. Of events in several partitions the log may
        take some and not others; that is an answer like any other and opens no circuit.

        Raises:
            BrokerUnavailable: nothing was acknowledged.
        """
        outcomes: list[Outcome] = []
        good: list[tuple[int, _Checked]] = []
        for index, raw in enumerate(events):
            try:
                good.append((index, self._checked(bytes(raw))))
            except InvalidEvent as error:
                outcomes.append(Outcome(index, _event_id_of(raw), Fate.REJECTED, str(error)))
            except RecursionError:
                outcomes.append(Outcome(index, None, Fate.REJECTED, "the event is nested too deeply"))
        try:
            outcomes += self._append(good)
        except InfrastructureFault:
            self._metrics.events.labels(Fate.UNACKNOWLEDGED.value).inc(len(good))
            raise
        for outcome in outcomes:
            self._metrics.events.labels(outcome.fate.value).inc()
        return sorted(outcomes, key=lambda outcome: outcome.index)

    def _checked(self, raw: bytes) -> _Checked:
        event = decode_event(raw)
        if event.event_type is EventType.USER_ERASED:
            raise InvalidEvent(
                "user_erased is not taken here, where it would reach one partition: DELETE /user_profile/{user_id}"
            )
        for name in ("user_id", "item_id"):
            value = getattr(event, name)
            if value is not None:
                check_addressable(value, name)
        if event.occurred_at_ms > self._clock() + FUTURE_LIMIT_MS:
            raise InvalidEvent(f"occurred_at {event.occurred_at.isoformat()} lies more than 24 h in the future")
        if event.event_type is EventType.PREFERENCES_SET:
            check_preferences(event.preferences())
        body = encode_event(event)
        if len(body) > MAX_EVENT_BYTES:  # written out, 1e15 is longer: the fold would refuse what was acknowledged
            raise InvalidEvent(f"written out, the event has {len(body)} bytes, more than the {MAX_EVENT_BYTES} allowed")
        return _Checked(event, body)

    def _append(self, good: Sequence[tuple[int, _Checked]]) -> list[Outcome]:
        if not good:
            return []
        bodies = [(one.event.partition_key, one.body) for _, one in good]
        answers = self._circuit.call(lambda: self._event_log.append(bodies))
        outcomes = []
        for (index, one), appended in zip(good, answers, strict=True):
            if appended is None:
                outcomes.append(Outcome(index, one.event.event_id, Fate.UNACKNOWLEDGED, NOT_ACKNOWLEDGED))
                continue
            outcomes.append(Outcome(index, one.event.event_id, Fate.ACCEPTED))
            if one.event.event_type is EventType.PREFERENCES_SET:
                self._spread(one.event, appended)
        return outcomes

    def _spread(self, event: Event, appended: Appended) -> None:
        """What a user asked for counts from now on, though it is not folded yet."""
        user_id, told = event.user_id, appended.enqueued_at
        assert user_id is not None, "decode_event lets no such event pass without its user"
        version = preferences_version(event, self._clock() if told is None else told)
        place = None if appended.sequence is None else (self._source, appended.partition, appended.sequence)
        self._keeper.acknowledged(user_id, Overlay(version, place=place))


def check_preferences(wanted: Preferences) -> None:
    """What an event may say, and makes no sense. Raises InvalidEvent."""
    low, high = wanted.min_price_cents, wanted.max_price_cents
    if low is not None and high is not None and low > high:
        raise InvalidEvent(f"min_price_cents {low} lies above max_price_cents {high}: nothing could be shown")
    for item_id in wanted.hidden_items:
        check_id(item_id, "hidden_items")


def _batch_of(body: bytes) -> Sequence[bytes | msgspec.Raw]:
    events: Sequence[bytes | msgspec.Raw]
    try:
        events = _ENVELOPE.decode(body).events if body.lstrip()[:1] == b"{" else _ARRAY.decode(body)
    except msgspec.ValidationError as error:
        raise InvalidEvent(f'the body must be a JSON array of events or {{"events": [...]}}: {error}') from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        lenient = _lenient_batch_of(body)
        if lenient is None:
            raise MalformedBatch(f"the body is not JSON: {error}") from error
        events = lenient
    if not 1 <= len(events) <= MOST_EVENTS:
        raise InvalidEvent(f"a request carries 1 to {MOST_EVENTS} events, this one {len(events)}")
    return events


def _lenient_batch_of(body: bytes) -> list[bytes] | None:
    r"""The events of a body that is JSON but for text that is none, such as "\ud800": what holds it is refused alone.

    None where the body is no JSON, or none of the two shapes.
    """
    try:
        found = json.loads(body, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return None
    events = found["events"] if isinstance(found, dict) and found.keys() == {"events"} else found
    return [json.dumps(one).encode() for one in events] if isinstance(events, list) else None


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def _event_id_of(raw: bytes | msgspec.Raw) -> str | None:
    try:
        return _NAMED.decode(raw).event_id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
