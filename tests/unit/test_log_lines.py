"""Log lines: one JSON object each, whatever is logged; and what an exception says is kept to ourselves."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from shared.errors import StateUnavailable
from shared.log_lines import FIELDS, REQUEST_ID, JsonLines, TextLines, write_log_lines


@pytest.fixture
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    formatters = [one.formatter for one in handlers]
    levels = {name: logging.getLogger(name).level for name in ("functions", "shared", "local")}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for handler, formatter in zip(handlers, formatters, strict=True):
        handler.setFormatter(formatter)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)
    logging.captureWarnings(capture=False)


def line(message: str, *args: object, style: type[logging.Formatter] = JsonLines, **more: Any) -> str:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(style())
    log = logging.getLogger("a.logger")
    log.handlers, log.propagate = [handler], False  # what pytest captures must be text that xdist can send
    log.warning(message, *args, **more)
    log.handlers = []
    return stream.getvalue()


def raised() -> Exception:
    try:
        read()
    except StateUnavailable as error:
        return error
    raise AssertionError("it raises")


def read() -> None:
    nothing: dict[str, int] = {}
    try:
        nothing["user-0004228"]
    except KeyError as inner:
        raise StateUnavailable("Redis does not answer") from inner


def test_a_line_is_one_object_with_the_requests_id() -> None:
    token = REQUEST_ID.set("0f9a1b2c")
    try:
        written = line('two\nlines and a "quote" %s', "\ud800", extra={FIELDS: {"status": 200}})
    finally:
        REQUEST_ID.reset(token)
    assert written.count("\n") == 1
    told = json.loads(written)
    assert told.pop("at").endswith("Z")
    assert told == {
        "level": "warning",
        "logger": "a.logger",
        "request_id": "0f9a1b2c",
        "message": 'two\nlines and a "quote" ?',
        "status": 200,
    }
    assert "request_id" not in json.loads(line("outside"))


def test_of_foreign_exceptions_only_type_and_place_are_told() -> None:
    written = line("it failed", exc_info=raised())
    assert "user-0004228" not in written
    ours, foreign = json.loads(written)["exception"]
    assert ours["message"] == "Redis does not answer"
    assert ours["type"] == "shared.errors.StateUnavailable"
    assert foreign["type"] == "builtins.KeyError"
    assert "message" not in foreign
    assert foreign["frames"][-1].endswith(" read")
    assert "user-0004228" not in line("it failed", style=TextLines, exc_info=raised())


def test_while_debugging_they_may_speak(restored: None) -> None:
    logging.getLogger("shared").setLevel(logging.DEBUG)
    assert "user-0004228" in line("it failed", exc_info=raised())


def test_an_exception_that_caused_itself_or_nests_deeply_ends() -> None:
    error = raised()
    error.__cause__ = error
    assert len(json.loads(line("round", exc_info=error))["exception"]) == 1

    def dive(depth: int) -> None:
        if depth:
            dive(depth - 1)
        raise ValueError

    with pytest.raises(ValueError) as caught:  # noqa: PT011 - any will do
        dive(200)
    assert len(json.loads(line("deep", exc_info=caught.value))["exception"][0]["frames"]) == 31


def test_every_handler_writes_in_the_style_asked_for(restored: None) -> None:
    stream = io.StringIO()
    root = logging.getLogger()
    root.addHandler(logging.StreamHandler(stream))
    write_log_lines("INFO", "json")
    logging.getLogger("functions.anything").info("told")
    logging.getLogger("somebody.else").warning("told too")
    assert [json.loads(one)["message"] for one in stream.getvalue().splitlines()] == ["told", "told too"]
    write_log_lines("ERROR", "text")
    logging.getLogger("functions.anything").info("not told")
    logging.getLogger("functions.anything").error("told")
    assert stream.getvalue().splitlines()[-1].endswith("error functions.anything: told")
    assert "not told" not in stream.getvalue()
