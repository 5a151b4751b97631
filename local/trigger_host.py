"""Runs what function_app.py registers, as Azure's host does: batches of the log, and timers by their schedules."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, Final

import azure.functions as func
from azure.functions.eventhub import EventHubTriggerConverter
from azure.functions.meta import Datum
from azure.functions.timer import TimerRequest

from local.schedule import Schedule
from shared.errors import ConfigurationError
from shared.events import from_ms
from shared.ports import LogRecord

log = logging.getLogger(__name__)

EVENT_HUB: Final = "eventHubTrigger"
TIMER: Final = "timerTrigger"
CONSUMER_GROUP: Final = "$Default"


@dataclass(frozen=True, slots=True)
class Triggered:
    """One function without an HTTP trigger: its name, its trigger's type and settings, and how to call it."""

    name: str
    trigger: str
    argument: str
    settings: dict[str, Any]
    body: Callable[..., Any]

    def call(self, value: object) -> None:
        """Invoke it with what its trigger delivers, to the end."""
        outcome = self.body(**{self.argument: value})
        if inspect.iscoroutine(outcome):
            asyncio.run(outcome)


def triggered_functions(app: func.FunctionApp) -> list[Triggered]:
    """The event and timer functions of an app, in the order of their registration."""
    found = []
    for function in app.get_functions():
        trigger = function.get_trigger()
        kind = None if trigger is None else trigger.type
        if trigger is not None and kind in (EVENT_HUB, TIMER):
            settings = trigger.get_dict_repr()
            found.append(
                Triggered(str(function.get_function_name()), kind, trigger.name, settings, function.get_user_function())
            )
    return found


def event_function(functions: Sequence[Triggered]) -> Triggered:
    """The one function that takes the event stream; raises ConfigurationError when there is not exactly one."""
    found = [function for function in functions if function.trigger == EVENT_HUB]
    if len(found) != 1:
        raise ConfigurationError(f"{len(found)} functions have an Event Hubs trigger; the pump feeds exactly one")
    return found[0]


def event_hub_batch(records: Sequence[LogRecord]) -> list[func.EventHubEvent]:
    """Records of one partition as the host's worker hands them over (cardinality many, data type binary).

    Bodies are a collection of bytes; everything else stands in arrays of the batch's metadata, and the partition only
    in its PartitionContext. The events are made by azure-functions' own converter.
    """
    first = records[0]
    if any((record.source, record.partition) != (first.source, first.partition) for record in records):
        raise ValueError("a batch holds the records of one partition")
    instants = [_instant(record.enqueued_at) for record in records]
    sequences = [record.sequence for record in records]
    system = [
        {"SequenceNumber": sequence, "Offset": str(sequence), "PartitionKey": None, "EnqueuedTimeUtc": instant}
        for sequence, instant in zip(sequences, instants, strict=True)
    ]
    context = {
        "FullyQualifiedNamespace": "embedded.local",
        "EventHubName": first.source,
        "ConsumerGroup": CONSUMER_GROUP,
        "PartitionId": str(first.partition),
    }
    metadata = {
        "PartitionContext": context,
        "TriggerPartitionContext": context,
        "PartitionKeyArray": [None] * len(records),
        "OffsetArray": [str(sequence) for sequence in sequences],
        "SequenceNumberArray": sequences,
        "EnqueuedTimeUtcArray": instants,
        "PropertiesArray": [{} for _ in records],
        "SystemPropertiesArray": system,
    }
    bodies = Datum(SimpleNamespace(bytes=[record.body for record in records]), "collection_bytes")
    trigger_metadata = {name: Datum(json.dumps(value), "json") for name, value in metadata.items()}
    events = EventHubTriggerConverter.decode(bodies, trigger_metadata=trigger_metadata)
    assert isinstance(events, list), "metadata arrays mean cardinality many"
    return events


def _instant(at: int) -> str:
    """As Azure's host writes it: UTC without saying so."""
    return from_ms(at).strftime("%Y-%m-%dT%H:%M:%S.") + f"{at % 1000:03d}"


class TimerThread:
    """Calls a timer function at once, as Azure does with what fell due while it was away, then by its schedule.

    A call that raises is logged, and the next one comes all the same.
    """

    def __init__(self, function: Triggered) -> None:
        self._function = function
        self._schedule = Schedule(function.settings["schedule"])
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"timer-{function.name}", daemon=True)

    def start(self) -> None:
        """Wait for the schedule in a thread of its own."""
        self._thread.start()

    def stop(self, timeout_s: float = 10.0) -> None:
        """End after the call under way."""
        self._stop.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        run_timer(self._function, past_due=True)
        while True:
            now = datetime.now(UTC)
            due = self._schedule.after(now)
            if self._stop.wait((due - now).total_seconds()):
                return
            run_timer(self._function)


def run_timer(function: Triggered, *, past_due: bool = False) -> bool:
    """Call a timer function once and return whether it went through; what it raised is logged."""
    try:
        function.call(TimerRequest(past_due=past_due))
    except Exception:
        log.exception("timer %s", function.name)
        return False
    return True
