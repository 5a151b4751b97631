"""What changed between two OpenAPI documents, and which of it breaks a client that worked before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from local.schema_changes import Schemas, breaks_readers, narrows

METHODS: Final = ("get", "put", "post", "patch", "delete", "head", "options", "trace")

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True, order=True)
class Change:
    """One difference; `path` is the API's, empty for what belongs to none."""

    path: str
    text: str
    breaking: bool = False

    def __str__(self) -> str:
        mark = "BREAKING " if self.breaking else ""
        return f"{mark}{self.path}: {self.text}" if self.path else f"{mark}{self.text}"


def changes(old: Document, new: Document) -> list[Change]:
    """Every difference in paths, methods, parameters, bodies and answers, by path; equal documents give none.

    Breaking: something removed (path, method, parameter, kind of answer or of body, field of an answer), something
    newly required of the client, a type or limit of what it sends narrowed, a type of what it reads widened.
    """
    schemas = Schemas(old, new)
    found: list[Change] = []
    before, after = old.get("paths", {}), new.get("paths", {})
    for path in sorted(before.keys() | after.keys()):
        if path not in after:
            found.append(Change(path, "removed", breaking=True))
        elif path not in before:
            found.append(Change(path, f"added ({', '.join(_methods(after[path]))})"))
        else:
            found += _of_path(path, before[path], after[path], schemas)
    if not found and old != new:
        found.append(Change("", "descriptions, examples or schemas that no path shows differ"))
    return found


def _methods(item: Document) -> list[str]:
    return [method for method in METHODS if method in item]


def _of_path(path: str, old: Document, new: Document, schemas: Schemas) -> Iterator[Change]:
    for method in METHODS:
        name = method.upper()
        if method in old and method not in new:
            yield Change(path, f"{name} removed", breaking=True)
        elif method in new and method not in old:
            yield Change(path, f"{name} added")
        elif method in old and old[method] != new[method]:
            told = list(_of_operation(old[method], new[method], schemas)) or [("documentation differs", False)]
            for text, breaking in told:
                yield Change(path, f"{name}: {text}", breaking=breaking)
        elif method in old:
            # The same words may stand for other schemas now.
            for text, breaking in _of_operation(old[method], new[method], schemas):
                yield Change(path, f"{name}: {text}", breaking=breaking)


Told = Iterator[tuple[str, bool]]


def _of_operation(old: Document, new: Document, schemas: Schemas) -> Told:
    yield from _of_parameters(_parameters(old), _parameters(new), schemas)
    yield from _of_body(old.get("requestBody"), new.get("requestBody"), schemas)
    yield from _of_answers(old.get("responses", {}), new.get("responses", {}), schemas)
    if old.get("security") != new.get("security"):
        yield "who may call it differs", False
    if old.get("operationId") != new.get("operationId"):
        yield f"operationId {old.get('operationId')} is now {new.get('operationId')}", True


def _parameters(operation: Document) -> dict[str, Document]:
    return {f"{one['in']} parameter {one['name']}": one for one in operation.get("parameters", ())}


def _of_parameters(old: Mapping[str, Document], new: Mapping[str, Document], schemas: Schemas) -> Told:
    for name in sorted(old.keys() | new.keys()):
        if name not in new:
            yield f"{name} removed", True
        elif name not in old:
            required = bool(new[name].get("required"))
            yield f"{name} added{', required' if required else ''}", required
        else:
            if new[name].get("required") and not old[name].get("required"):
                yield f"{name} is now required", True
            yield from _of_input(name, old[name].get("schema", {}), new[name].get("schema", {}), schemas)


def _of_body(old: Document | None, new: Document | None, schemas: Schemas) -> Told:
    if old is None or new is None:
        if new is not None:
            yield "body added", bool(new.get("required"))
        elif old is not None:
            yield "body removed", True
        return
    if new.get("required") and not old.get("required"):
        yield "body is now required", True
    kinds = old.get("content", {}), new.get("content", {})
    yield from _of_kinds("body", *kinds)
    for kind in kinds[0].keys() & kinds[1].keys():
        yield from _of_input("body", kinds[0][kind].get("schema", {}), kinds[1][kind].get("schema", {}), schemas)


def _of_input(name: str, old: Any, new: Any, schemas: Schemas) -> Told:  # noqa: ANN401 - a JSON schema
    reasons = list(narrows(old, new, schemas))
    for reason in reasons:
        yield f"{name}: {reason}", True
    if not reasons and schemas.differ(old, new):
        yield f"{name}: takes more, or is told otherwise", False


def _of_answers(old: Document, new: Document, schemas: Schemas) -> Told:
    for status in sorted(old.keys() | new.keys()):
        if status not in new:
            yield f"answer {status} removed", status.startswith("2")
        elif status not in old:
            yield f"answer {status} added", False
        else:
            kinds = old[status].get("content", {}), new[status].get("content", {})
            yield from _of_kinds(f"answer {status}", *kinds)
            for kind in kinds[0].keys() & kinds[1].keys():
                before, after = kinds[0][kind].get("schema", {}), kinds[1][kind].get("schema", {})
                reasons = list(breaks_readers(before, after, schemas))
                for reason in reasons:
                    yield f"answer {status}: {reason}", True
                if not reasons and schemas.differ(before, after):
                    yield f"answer {status}: tells more, or is told otherwise", False


def _of_kinds(name: str, old: Document, new: Document) -> Told:
    for kind in sorted(old.keys() - new.keys()):
        yield f"{name}: {kind} removed", True
    for kind in sorted(new.keys() - old.keys()):
        yield f"{name}: {kind} added", False
