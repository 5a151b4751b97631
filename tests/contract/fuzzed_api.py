"""The API under schemathesis: every check it knows, on the real application over a real shop.

What a JSON schema cannot say is told here, once: such an answer is no failure. Everything else is.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import schemathesis
from fastapi import FastAPI
from schemathesis import Case, HookContext, Response
from schemathesis.config import SchemathesisConfig
from schemathesis.core.failures import Failure
from schemathesis.engine import events, from_schema

_UNSAID: Final = (
    r"must have 1 to 128 bytes",  # a schema counts characters
    r"lies more than 24 h in the future",
    r"must lie between",  # instants on the edge of what a calendar holds
    r"more than the \d+ (bytes )?allowed",  # an event's bytes
    r"names at least one field",  # of several, whichever
    r"lies above max_price_cents",
    r"min_price_cents may not exceed",
    r"cursor is (not one|none) of ours",
    r"say which to replay",  # ids, a filter, or all
    r"since: Value error",  # a day that no month has
)
SAYS_NO_SCHEMA: Final = re.compile("|".join(_UNSAID))
"""Rules between fields, of bytes and of the clock: a request that fits the schema may break these, and gets a 422."""
REFUSALS: Final = (400, 401, 403, 404, 405, 413, 414, 422, 429, 431)
TAKES_EACH_FOR_ITSELF: Final = frozenset({"/events", "/items:batch"})
"""202 with the outcome of each: one that is invalid does not spoil the others."""
LISTED: Final = "category_path"
"""The one parameter whose parts may be any text."""
PLAUSIBLE_YEAR: Final = "2025"
STEP_S: Final = 2.0


@dataclass
class Report:
    """What came of a run: answers by status, and failures by (operation, kind) with one example each."""

    cases: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    valid: Counter[bool] = field(default_factory=Counter)
    failures: dict[tuple[str, str], str] = field(default_factory=dict)
    operations: set[str] = field(default_factory=set)

    @property
    def accepted_share(self) -> float:
        """Share of requests that fit the schema and got what they asked for, or a 404 for what is not there."""
        return self.valid[True] / max(self.valid.total(), 1)

    def told(self) -> str:
        """The failures as text."""
        return "\n\n".join(f"{operation}: {title}\n{text}" for (operation, title), text in self.failures.items())


def fuzz(
    app: FastAPI,
    keep_up: Callable[[], None],
    *,
    seed: int,
    examples: int,
    phases: tuple[str, ...],
    paths: str = "",
    headers: Mapping[str, str] | None = None,
    without: tuple[str, ...] = (),
    learning: bool = True,
) -> Report:
    """Run the phases ("coverage", "fuzzing", "stateful") with so many examples an operation.

    `keep_up` folds what was written and lets the worker follow. `paths` is a pattern, `without` names checks that do
    not apply. `learning` takes ids from answers, so that requests find something; else they find nothing.
    """
    config = SchemathesisConfig.from_dict(
        {
            "seed": seed,
            "continue-on-failure": True,
            "workers": 1,
            "headers": dict(headers or {}),
            "generation": {
                "deterministic": True,
                "max-examples": examples,
                "no-shrink": True,
                "database": "none",
                "with-security-parameters": not headers,  # made-up credentials beside true ones are refused
            },
            "phases": {
                "examples": {"enabled": False},
                "coverage": {"enabled": "coverage" in phases},
                "fuzzing": {"enabled": "fuzzing" in phases, "extra-data-sources": {"responses": learning}},
                "stateful": {"enabled": "stateful" in phases},
            },
            "checks": {
                "negative_data_rejection": {"expected-statuses": [*map(str, REFUSALS), "5xx"]},
                **{one: {"enabled": False} for one in without},
            },
        }
    )
    schema = schemathesis.openapi.from_asgi("/openapi.json", app, config=config).include(path_regex=paths)
    kept_up_at = time.monotonic()

    def after_call(_context: HookContext, case: Case[Any], response: Response) -> None:
        nonlocal kept_up_at
        # A write counts once it is folded; what is deleted or made is looked for with the next request.
        followed_up = response.status_code == 202 and (case.method == "DELETE" or "stateful" in phases)
        if followed_up or time.monotonic() - kept_up_at > STEP_S:
            keep_up()
            kept_up_at = time.monotonic()

    schema.hooks.hook(after_call)
    schema.hooks.hook(map_body)
    schema.hooks.hook("map_query")(without_instants if "stateful" in phases else map_query)
    schema.hooks.hook(filter_failure)
    report = Report()
    for event in from_schema(schema).execute():
        if isinstance(event, events.ScenarioFinished):
            _note(report, event)
        elif isinstance(event, events.NonFatalError | events.FatalError):
            report.failures["the harness", type(event).__name__] = str(getattr(event, "exception", event))
    return report


def map_body(_context: HookContext, body: Any) -> Any:
    """As a client would write it: instants of this age, whole numbers without a fraction (1304.0 is 1304)."""
    if isinstance(body, dict):
        return {
            name: _instant(value) if name.endswith("_at") else map_body(_context, value) for name, value in body.items()
        }
    if isinstance(body, list):
        return [map_body(_context, value) for value in body]
    return int(body) if isinstance(body, float) and body.is_integer() else body


def map_query(_context: HookContext, query: dict[str, Any]) -> dict[str, Any]:
    """As `map_body`."""
    return {name: _instant(value) if name.endswith("_at") else value for name, value in (query or {}).items()}


def without_instants(_context: HookContext, query: dict[str, Any]) -> dict[str, Any]:
    """A change counts from now: one dated before another would be undone by it, in whatever order they come."""
    return {name: value for name, value in (query or {}).items() if name != "occurred_at"}


def filter_failure(_context: HookContext, failure: Failure, case: Case[Any], response: Response) -> bool:
    """Is it one? See `SAYS_NO_SCHEMA`."""
    kind = type(failure).__name__
    if kind == "RejectedPositiveData":
        return not _breaks_only_unsaid_rules(response)
    if kind == "AcceptedNegativeData" and case.path in TAKES_EACH_FOR_ITSELF and response.status_code == 202:
        return not response.json()["rejected"]
    if kind == "AcceptedNegativeData" and not isinstance((case.query or {}).get(LISTED, []), list):
        return False  # no list for the schema, and on the wire a list of one name
    if kind == "UseAfterFree":
        # Of an erased user there is an empty profile, as of any unknown one; writing to a deleted item is taken (202)
        # and changes nothing that is shown. Reading a deleted item is the case that counts.
        return case.path == "/items/{item_id}" and case.method == "GET"
    return True


def _breaks_only_unsaid_rules(response: Response) -> bool:
    problem = response.json() if response.status_code == 422 else {}
    reasons = [one.get("reason", "") for one in problem.get("outcomes", ())] or [problem.get("detail", "")]
    return all(SAYS_NO_SCHEMA.search(reason or "") for reason in reasons)


def _instant(value: Any) -> Any:
    if isinstance(value, str) and re.match(r"\d{4}-\d\d-\d\dT", value) and value[:4] > PLAUSIBLE_YEAR:
        return PLAUSIBLE_YEAR + value[4:].replace("02-29", "02-28") if value[:4] > "2026" else value
    return value


def _note(report: Report, event: events.ScenarioFinished) -> None:
    recorder = event.recorder
    report.cases += len(recorder.cases)
    for case_id, interaction in recorder.interactions.items():
        if interaction.response is None:
            continue
        status = interaction.response.status_code
        report.statuses[status] += 1
        case = recorder.cases[case_id].value
        report.operations.add(case.operation.label)
        if case.meta is not None and case.meta.generation.mode.is_positive:
            report.valid[status < 300 or status == 404] += 1
    for case_id, checks in recorder.checks.items():
        for check in checks:
            if check.failure_info is not None:
                failure = check.failure_info.failure
                operation = recorder.cases[case_id].value.operation.label
                sent = recorder.interactions.get(case_id)
                answer = b"" if sent is None or sent.response is None else sent.response.content or b""
                text = f"{failure.message}\n{check.failure_info.code_sample}\n{answer[:500].decode(errors='replace')}"
                report.failures.setdefault((operation, failure.title), text)
