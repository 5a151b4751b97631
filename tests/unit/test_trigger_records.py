"""What the Event Hubs trigger delivers becomes records of the log, and what it leaves out is never guessed."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import azure.functions as func
import pytest
from azure.functions.eventhub import EventHubTriggerConverter
from azure.functions.meta import Datum

from functions.process_events import records_of
from local.trigger_host import event_hub_batch
from shared.errors import InfrastructureFault
from shared.ports import LogRecord

RECORDS = [LogRecord("live-1", 3, sequence, 1_780_000_000_123 + sequence, b"body %d" % sequence) for sequence in (7, 8)]
CONTEXT = {"FullyQualifiedNamespace": "shop.servicebus.windows.net", "EventHubName": "events", "PartitionId": "3"}
SYSTEM: list[dict[str, Any]] = [
    {"SequenceNumber": 7, "EnqueuedTimeUtc": "2026-05-28T20:26:40.130"},
    {"SequenceNumber": 8, "EnqueuedTimeUtc": "2026-05-28T20:26:40.131"},
]


def delivered(**changes: Any) -> list[func.EventHubEvent]:
    """A batch by azure-functions' own converter, with some of the host's metadata changed or (None) left out."""
    metadata: dict[str, Any] = {
        "PartitionContext": CONTEXT,
        "TriggerPartitionContext": CONTEXT,
        "SystemPropertiesArray": SYSTEM,
    } | changes
    bodies = Datum(SimpleNamespace(bytes=[record.body for record in RECORDS]), "collection_bytes")
    kept = {name: Datum(json.dumps(value), "json") for name, value in metadata.items() if value is not None}
    events = EventHubTriggerConverter.decode(bodies, trigger_metadata=kept)
    assert isinstance(events, list)
    return events


def test_a_whole_batch_becomes_records() -> None:
    assert records_of(delivered(), "live-1") == RECORDS
    assert records_of(delivered(TriggerPartitionContext=None), "live-1") == RECORDS
    assert records_of(delivered(PartitionContext=None), "live-1") == RECORDS
    assert records_of(event_hub_batch(RECORDS), "live-1") == RECORDS
    assert records_of([], "live-1") == []


@pytest.mark.parametrize(
    "changes",
    [
        {"PartitionContext": None, "TriggerPartitionContext": None},
        {"PartitionContext": {}, "TriggerPartitionContext": {}},
        {"PartitionContext": {"PartitionId": None}, "TriggerPartitionContext": None},
        {"PartitionContext": {"PartitionId": ""}, "TriggerPartitionContext": None},
        {"PartitionContext": {"PartitionId": "-1"}, "TriggerPartitionContext": None},
        {"PartitionContext": {"PartitionId": "first"}, "TriggerPartitionContext": None},
        {"PartitionContext": "3", "TriggerPartitionContext": None},
        {"SystemPropertiesArray": [{}, {}]},
        {"SystemPropertiesArray": [SYSTEM[0], {**SYSTEM[1], "SequenceNumber": None}]},
        {"SystemPropertiesArray": [SYSTEM[0], {**SYSTEM[1], "EnqueuedTimeUtc": None}]},
        {"SystemPropertiesArray": [SYSTEM[0], {"SequenceNumber": 8}]},
        {"SystemPropertiesArray": [SYSTEM[0], {"EnqueuedTimeUtc": SYSTEM[1]["EnqueuedTimeUtc"]}]},
    ],
    ids=str,
)
def test_what_is_missing_is_a_fault_and_never_partition_0(changes: dict[str, Any]) -> None:
    with pytest.raises(InfrastructureFault, match="check the trigger"):
        records_of(delivered(**changes), "live-1")
