"""Each kind of change of the API is found, told by path, and known for breaking or not; breaking ones need a line."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from local.api_changes import changes
from local.describe_api import describe, document_text

Document = dict[str, Any]

THING: Document = {
    "type": "object",
    "required": ["id", "price"],
    "properties": {
        "id": {"type": "string"},
        "price": {"type": "integer"},
        "brand": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "parts": {"type": "array", "items": {"$ref": "#/components/schemas/Thing"}},
    },
}
ORDER: Document = {
    "type": "object",
    "additionalProperties": False,
    "required": ["thing"],
    "properties": {
        "thing": {"type": "string", "maxLength": 10},
        "kind": {"enum": ["gift", "plain"]},
        "count": {"type": "integer"},
        "note": {"oneOf": [{"type": "string"}, {"type": "integer"}]},
    },
}
BEFORE: Document = {
    "openapi": "3.1.0",
    "paths": {
        "/things/{id}": {
            "get": {
                "operationId": "get_thing",
                "description": "One thing.",
                "parameters": [
                    {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}},
                    {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 100}},
                ],
                "responses": {
                    "200": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Thing"}}}},
                    "404": {"content": {"application/problem+json": {"schema": {"type": "object"}}}},
                },
            },
            "delete": {"operationId": "delete_thing", "responses": {"202": {}}},
        },
        "/orders": {
            "post": {
                "operationId": "order",
                "requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Order"}}}},
                "responses": {"202": {}},
            }
        },
    },
    "components": {"schemas": {"Thing": THING, "Order": ORDER}},
}


def get(document: Document) -> Document:
    found: Document = document["paths"]["/things/{id}"]["get"]
    return found


def limit(document: Document) -> Document:
    found: Document = get(document)["parameters"][1]["schema"]
    return found


def post(document: Document) -> Document:
    found: Document = document["paths"]["/orders"]["post"]
    return found


def thing(document: Document) -> Document:
    found: Document = document["components"]["schemas"]["Thing"]
    return found


def order(document: Document) -> Document:
    found: Document = document["components"]["schemas"]["Order"]
    return found


def field(document: Document, name: str) -> Document:
    found: Document = order(document)["properties"][name]
    return found


Edit = Callable[[Document], object]
THINGS, ORDERS = "/things/{id}", "/orders"
BREAKING: list[tuple[str, str, Edit]] = [
    (ORDERS, "removed", lambda d: d["paths"].pop("/orders")),
    (THINGS, "DELETE removed", lambda d: d["paths"]["/things/{id}"].pop("delete")),
    (THINGS, "query parameter limit removed", lambda d: get(d)["parameters"].pop()),
    (THINGS, "parameter day added, required", lambda d: get(d)["parameters"].append(
        {"name": "day", "in": "query", "required": True, "schema": {}})),
    (THINGS, "limit is now required", lambda d: get(d)["parameters"][1].update(required=True)),
    (THINGS, "maximum is 50, was 100", lambda d: limit(d).update(maximum=50)),
    (THINGS, "minimum is 2, was 1", lambda d: limit(d).update(minimum=2)),
    (THINGS, "pattern is ^a, was none", lambda d: get(d)["parameters"][0]["schema"].update(pattern="^a")),
    (THINGS, "type integer is not taken any more", lambda d: limit(d).update(type="string")),
    (THINGS, "answer 200 removed", lambda d: get(d)["responses"].pop("200")),
    (THINGS, "application/json removed", lambda d: get(d)["responses"]["200"].update(content={})),
    (THINGS, "field price removed", lambda d: thing(d)["properties"].pop("price")),
    (THINGS, "field price may be absent now", lambda d: thing(d)["required"].remove("price")),
    (THINGS, "field price: type may be string now", lambda d: thing(d)["properties"]["price"].update(type="string")),
    (THINGS, "field price: null is new", lambda d: thing(d)["properties"].update(
        price={"anyOf": [{"type": "integer"}, {"type": "null"}]})),
    (THINGS, "operationId get_thing is now thing", lambda d: get(d).update(operationId="thing")),
    (ORDERS, "body is now required", lambda d: post(d)["requestBody"].update(required=True)),
    (ORDERS, "body removed", lambda d: post(d).pop("requestBody")),
    (ORDERS, "body: application/json removed", lambda d: post(d)["requestBody"].update(content={})),
    (ORDERS, "field count is now required", lambda d: order(d)["required"].append("count")),
    (ORDERS, "field count removed", lambda d: order(d)["properties"].pop("count")),
    (ORDERS, "field thing: maxLength is 5, was 10", lambda d: field(d, "thing").update(maxLength=5)),
    (ORDERS, "field thing: minLength is 1, was none", lambda d: field(d, "thing").update(minLength=1)),
    (ORDERS, "field kind: 'gift' is not taken any more", lambda d: field(d, "kind").update(enum=["plain"])),
    (ORDERS, "field count: only 1, 2 are taken now", lambda d: field(d, "count").update(enum=[1, 2])),
    (ORDERS, "field count: maximum is 5, was none", lambda d: field(d, "count").update(maximum=5)),
    (ORDERS, "field count: minimum is 0, was none", lambda d: field(d, "count").update(minimum=0)),
    (ORDERS, "field note: integer is not taken any more", lambda d: field(d, "note")["oneOf"].pop()),
]  # fmt: skip
COMPATIBLE: list[tuple[str, str, Edit]] = [
    ("/new", "added (get)", lambda d: d["paths"].update({"/new": {"get": {"responses": {}}}})),
    (THINGS, "PUT added", lambda d: d["paths"]["/things/{id}"].update(put={"responses": {}})),
    (THINGS, "query parameter day added", lambda d: get(d)["parameters"].append(
        {"name": "day", "in": "query", "schema": {}})),
    (THINGS, "limit: takes more", lambda d: limit(d).update(maximum=200)),
    (THINGS, "answer 429 added", lambda d: get(d)["responses"].update({"429": {}})),
    (THINGS, "answer 404 removed", lambda d: get(d)["responses"].pop("404")),
    (THINGS, "answer 200: tells more", lambda d: thing(d)["properties"].update(colour={"type": "string"})),
    (THINGS, "documentation differs", lambda d: get(d).update(description="A thing.")),
    (THINGS, "who may call it differs", lambda d: get(d).update(security=[{"key": []}])),
    (ORDERS, "body: takes more", lambda d: order(d)["properties"].update(colour={"type": "string"})),
    (ORDERS, "body: takes more", lambda d: field(d, "thing").update(maxLength=20)),
    (ORDERS, "body: takes more", lambda d: field(d, "count").update(type="number")),
    (ORDERS, "body: takes more", lambda d: order(d)["required"].remove("thing")),
    (ORDERS, "body: takes more", lambda d: field(d, "kind")["enum"].append("big")),
    ("", "descriptions, examples", lambda d: d.update(openapi="3.1.1")),
]  # fmt: skip


def edited(edit: Edit) -> Document:
    document = copy.deepcopy(BEFORE)
    edit(document)
    return document


@pytest.mark.parametrize(("path", "text", "edit"), BREAKING, ids=[text for _, text, _ in BREAKING])
def test_what_breaks_a_client_is_told_and_refused_until_it_is_announced(
    path: str, text: str, edit: Edit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    after = edited(edit)
    breaking = [one for one in changes(BEFORE, after) if one.breaking]
    assert [one.path for one in breaking] == [path]
    assert text in breaking[0].text

    page, changelog = tmp_path / "openapi.json", tmp_path / "CHANGELOG.md"
    page.write_text(document_text(BEFORE), encoding="utf-8")
    other = "# Changelog\n\n## [Unreleased]\n\n- **Breaking**: `/other` is gone.\n"
    for refused in (
        f"{other}\n## [1.0]\n\n- **Breaking**: `{path}` was already.\n",
        f"# Changelog\n\n## [Unreleased]\n\n- `{path}` is another.\n",
        f"# Changelog\n\n- **Breaking**: `{path}`\n",
    ):
        changelog.write_text(refused, encoding="utf-8")
        assert describe(after, page, changelog, check=False) == 1
        assert page.read_text(encoding="utf-8") == document_text(BEFORE)
        assert text in capsys.readouterr().err
    changelog.write_text(f"## [Unreleased]\n\n- **Breaking**: `GET {path}` is another.\n", encoding="utf-8")
    assert describe(after, page, changelog, check=False) == 0
    assert page.read_text(encoding="utf-8") == document_text(after)


@pytest.mark.parametrize(("path", "text", "edit"), COMPATIBLE, ids=[f"{path} {text}" for path, text, _ in COMPATIBLE])
def test_what_breaks_nobody_is_told_and_written(path: str, text: str, edit: Edit, tmp_path: Path) -> None:
    after = edited(edit)
    found = changes(BEFORE, after)
    assert [(one.path, one.breaking) for one in found] == [(path, False)]
    assert text in found[0].text
    page, changelog = tmp_path / "openapi.json", tmp_path / "CHANGELOG.md"
    page.write_text(document_text(BEFORE), encoding="utf-8")
    changelog.write_text("## [Unreleased]\n", encoding="utf-8")
    assert describe(after, page, changelog, check=False) == 0
    assert describe(after, page, changelog, check=True) == 0


def test_the_check_fails_on_any_difference_and_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, changelog = tmp_path / "openapi.json", tmp_path / "CHANGELOG.md"
    assert describe(BEFORE, page, changelog, check=True) == 1
    assert not page.exists()
    page.write_text(document_text(BEFORE), encoding="utf-8")
    assert describe(BEFORE, page, changelog, check=True) == 0
    after = edited(lambda d: (d["paths"].pop("/orders"), limit(d).update(maximum=200)))
    assert describe(after, page, changelog, check=True) == 1
    assert page.read_text(encoding="utf-8") == document_text(BEFORE)
    told = capsys.readouterr().err
    assert "BREAKING /orders: removed" in told
    assert "/things/{id}: GET: query parameter limit: takes more" in told
    assert "python -m local.describe_api" in told


def test_a_schema_inside_itself_is_compared_once() -> None:
    after = edited(lambda d: thing(d)["properties"]["parts"].update(items={"type": "string"}))
    assert [str(one) for one in changes(BEFORE, after)] == [
        "BREAKING /things/{id}: GET: answer 200: field parts: items: type may be string now"
    ]
    assert changes(BEFORE, copy.deepcopy(BEFORE)) == []
