"""Microsoft's own Python runtime for Functions, driven in process as Azure's host drives it over gRPC.

The host and the worker talk in protobuf messages; the runtime is handed the module of their classes when it is
initialised, so plain objects with the same fields stand in for them. What is sent has the shape that the host's and
the Event Hubs extension's sources give it, and the index of functions is the runtime's.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from azure_functions_runtime import (  # type: ignore[import-untyped]  # the wheel carries no py.typed
    functions_metadata_request,
    start_threadpool_executor,
    stop_threadpool_executor,
    worker_init_request,
)
from azure_functions_runtime.bindings.datumdef import Datum  # type: ignore[import-untyped]  # as above
from azure_functions_runtime.native_invocation import (  # type: ignore[import-untyped]  # as above
    invocation_request_native,
)

HTTP = "httpTrigger"
EVENT_HUB = "eventHubTrigger"
TIMER = "timerTrigger"
REQUEST_ID = "0f9a1b2c-0000-4000-8000-00000000beef"
HOST_NAME = "recommndr.azurewebsites.net"
ADDRESS_CHARACTERS = "/:@!$&'()*+,;=-._~"


class Message(SimpleNamespace):
    """A protobuf message."""


class BindingInfo(Message):
    """BindingInfo of FunctionRpc.proto, with the values of its enumerations."""

    undefined, string, binary, stream = range(4)
    out, inout = 1, 2


class StatusResult(Message):
    """StatusResult of FunctionRpc.proto."""

    Failure, Success = range(2)


PROTOS = SimpleNamespace(
    BindingInfo=BindingInfo,
    StatusResult=StatusResult,
    FunctionMetadataResponse=Message,
    RpcException=Message,
    RpcFunctionMetadata=Message,
    RpcRetryOptions=Message,
    WorkerInitResponse=Message,
    WorkerMetadata=Message,
)


@dataclass(frozen=True)
class IndexedFunction:
    """One function as the runtime reports it to the host: its one trigger binding, and how it is retried."""

    name: str
    function_id: str
    trigger: Mapping[str, Any]
    outputs: tuple[str, ...]
    retry: Any

    @property
    def kind(self) -> str:
        return str(self.trigger["type"])


@dataclass(frozen=True)
class Answer:
    """An HTTP answer; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Request:
    """What a client sends to an HTTP function; `target` is path and query as they stand in the request."""

    function: str
    target: str
    method: str = "GET"
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class HubEvent:
    """What an event hub knows of an event; `enqueued_time` is written as .NET writes it."""

    sequence: int
    enqueued_time: str
    body: bytes


class InvocationFailed(Exception):
    """The function raised; the host would see a failed invocation."""


class RuntimeHost:
    """The runtime, started on an application's folder; a context manager. One to a process: it keeps globals."""

    def __init__(self, folder: Path) -> None:
        self._runner = asyncio.Runner()
        start_threadpool_executor()
        answer = self._run(worker_init_request(_init_request(folder)))
        if answer.result.status != StatusResult.Success:
            raise InvocationFailed(f"{answer.result.exception.message}\n{answer.result.exception.stack_trace}")
        found = self._run(functions_metadata_request(None)).function_metadata_results
        self.functions = {one.name: _indexed(one) for one in found or ()}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        stop_threadpool_executor()
        self._runner.close()

    def http(self, request: Request) -> Answer:
        """Invoke an HTTP function."""
        return self.http_together([request])[0]

    def http_together(self, requests: Sequence[Request]) -> list[Answer]:
        """Invoke HTTP functions at the same time, on the worker's one event loop."""
        return self._runner.run(self._answers(requests))

    async def _answers(self, requests: Sequence[Request]) -> list[Answer]:
        calls = []
        for one in requests:
            function = self.functions[one.function]
            calls.append(self._invoke(function, Datum(_rpc_http(function, one), "http"), {}))
        return [_answer(answer) for answer in await asyncio.gather(*calls)]

    def event_batch(self, name: str, events: Sequence[HubEvent], *, partition: str | None, hub: str = "events") -> None:
        """Invoke an Event Hubs function of cardinality many with one partition's events."""
        bodies = Datum(SimpleNamespace(bytes=[one.body for one in events]), "collection_bytes")
        self._run(self._invoke(self.functions[name], bodies, batch_metadata(events, partition, hub)))

    def timer(self, name: str, *, past_due: bool = False) -> None:
        """Invoke a timer function."""
        info = {"Schedule": {"AdjustForDST": True}, "ScheduleStatus": None, "IsPastDue": past_due}
        self._run(self._invoke(self.functions[name], Datum(json.dumps(info), "json"), {}))

    async def _invoke(self, function: IndexedFunction, value: Datum, metadata: Mapping[str, Datum]) -> Any:
        sent = {**metadata, "sys": _json({"MethodName": function.name, "RandGuid": str(uuid.uuid4())})}
        inputs = [(function.trigger["name"], value)]
        succeeded, answer, _outputs, error, trace = await invocation_request_native(
            str(uuid.uuid4()), function.function_id, inputs, sent
        )
        if not succeeded:
            raise InvocationFailed(f"{error}\n{trace}")
        return answer

    def _run(self, coroutine: Any) -> Any:
        return self._runner.run(coroutine)


def batch_metadata(events: Sequence[HubEvent], partition: str | None, hub: str) -> dict[str, Datum]:
    """Trigger metadata as the Event Hubs extension (5 and newer) and the host's conversion to gRPC make it.

    Arrays of text and of whole numbers arrive as collections, all else as JSON; null texts are left out.
    """
    system = [
        {
            "x-opt-sequence-number": one.sequence,
            "x-opt-enqueued-time": one.enqueued_time,
            "SequenceNumber": one.sequence,
            "Offset": one.sequence * 64,
            "OffsetString": str(one.sequence * 64),
            "PartitionKey": None,
            "EnqueuedTimeUtc": one.enqueued_time,
        }
        for one in events
    ]
    offsets = SimpleNamespace(string=[str(one.sequence * 64) for one in events])
    metadata = {
        "PartitionKeyArray": Datum(SimpleNamespace(string=[]), "collection_string"),
        "OffsetArray": Datum(offsets, "collection_string"),
        "OffsetStringArray": Datum(offsets, "collection_string"),
        "SequenceNumberArray": Datum(SimpleNamespace(sint64=[one.sequence for one in events]), "collection_sint64"),
        "EnqueuedTimeUtcArray": _json([one.enqueued_time for one in events]),
        "PropertiesArray": _json([{} for _ in events]),
        "SystemPropertiesArray": _json(system),
    }
    if partition is not None:
        context = {
            "IsCheckpointingAfterInvocation": True,
            "FullyQualifiedNamespace": "recommndr.servicebus.windows.net",
            "EventHubName": hub,
            "ConsumerGroup": "$Default",
            "PartitionId": partition,
        }
        metadata["TriggerPartitionContext"] = metadata["PartitionContext"] = _json(context)
    return metadata


def _init_request(folder: Path) -> SimpleNamespace:
    init = SimpleNamespace(capabilities={}, function_app_directory=str(folder))
    properties = {"host": "127.0.0.1", "protos": PROTOS}
    return SimpleNamespace(request=SimpleNamespace(worker_init_request=init), properties=properties)


def _indexed(metadata: Any) -> IndexedFunction:
    bindings = [json.loads(raw) for raw in metadata.raw_bindings]
    triggers = [one for one in bindings if one["type"].endswith("Trigger")]
    assert len(triggers) == 1, f"{metadata.name} has {len(triggers)} triggers"
    outputs = tuple(one["type"] for one in bindings if one["direction"].lower() == "out")
    return IndexedFunction(metadata.name, metadata.function_id, triggers[0], outputs, metadata.retry_options)


def _rpc_http(function: IndexedFunction, request: Request) -> dict[str, Any]:
    """RpcHttp: the host decodes the path but for %2F and writes it anew; repeats of a query value are joined."""
    address = urlsplit(request.target)
    path = "%2F".join(quote(unquote(part), ADDRESS_CHARACTERS) for part in _split_slashes(address.path))
    url = f"https://{HOST_NAME}{path}" + (f"?{address.query}" if address.query else "")
    query: dict[str, str] = {}
    for key, value in parse_qsl(address.query):
        query[key] = f"{query[key]},{value}" if key in query else value
    return {
        "method": Datum(request.method, "string"),
        "url": Datum(url, "string"),
        "headers": _texts(sent_headers(request)),
        "query": _texts(query),
        "params": _texts(_route_values(str(function.trigger.get("route", "")), path)),
        "body": Datum(request.body, "bytes"),
    }


def sent_headers(request: Request) -> dict[str, str]:
    """The headers that reach a server, names in lower case."""
    given = {key.lower(): value for key, value in request.headers.items()}
    sent = {"host": HOST_NAME, "x-request-id": REQUEST_ID} | given
    return sent | ({"content-length": str(len(request.body))} if request.body else {})


def _answer(datum: Datum) -> Answer:
    assert datum.type == "http", f"the function answered with {datum.type}"
    value = datum.value
    headers = {key.lower(): one.value for key, one in value["headers"].items()}
    return Answer(int(value["status_code"].value), headers, value["body"].value)


def _split_slashes(path: str) -> list[str]:
    return path.replace("%2f", "%2F").split("%2F")


def _route_values(route: str, path: str) -> dict[str, str]:
    pairs = zip(route.strip("/").split("/"), path.strip("/").split("/"), strict=False)
    return {name[1:-1]: unquote(value) for name, value in pairs if name.startswith("{")}


def _texts(values: Mapping[str, str]) -> dict[str, Datum]:
    return {name: Datum(value, "string") for name, value in values.items()}


def _json(value: Any) -> Datum:
    return Datum(json.dumps(value), "json")
