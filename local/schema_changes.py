"""How a JSON schema changed: does the new one take less than the old one took, or give what nobody was told of?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

Schema = Mapping[str, Any]

_ALL_TYPES: Final = frozenset({"null", "boolean", "integer", "number", "string", "array", "object"})
_LOWER_LIMITS: Final = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_COUNTS: Final = frozenset({"minLength", "minItems", "minProperties"})
_UPPER_LIMITS: Final = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_EXACT: Final = ("pattern", "format", "multipleOf", "uniqueItems", "propertyNames", "not")
_WORDS: Final = frozenset({"description", "title", "example", "examples", "default", "deprecated"})


@dataclass(frozen=True)
class Schemas:
    """Both documents, for what `$ref` points at; a pair of references is compared once."""

    old: Mapping[str, Any]
    new: Mapping[str, Any]
    under_way: set[tuple[str, str, str]] = field(default_factory=set)

    def differ(self, old: Any, new: Any) -> bool:  # noqa: ANN401 - a JSON schema
        """Do they differ in more than words?"""
        return bool(_expanded(old, self.old) != _expanded(new, self.new))


def narrows(old: Schema, new: Schema, schemas: Schemas) -> Iterator[str]:
    """Why some value that `old` takes is not taken by `new`; nothing when all are (as far as these rules see)."""
    yield from _compare("takes", old, new, schemas, _narrows)


def breaks_readers(old: Schema, new: Schema, schemas: Schemas) -> Iterator[str]:
    """Why who reads values of `old` may stumble over those of `new`: a field is gone or may be, a type is another.

    New fields, and new values or limits of a known type, are no break.
    """
    yield from _compare("reads", old, new, schemas, _breaks_readers)


def _compare(kind: str, old: Schema, new: Schema, schemas: Schemas, compare: Any) -> Iterator[str]:  # noqa: ANN401 - one of the two below
    names = old.get("$ref", ""), new.get("$ref", "")
    if any(names):
        key = (kind, *names)
        if key in schemas.under_way:
            return
        schemas.under_way.add(key)
        yield from compare(_resolved(old, schemas.old), _resolved(new, schemas.new), schemas)
        schemas.under_way.discard(key)
        return
    yield from compare(old, new, schemas)


def _narrows(old: Schema, new: Schema, schemas: Schemas) -> Iterator[str]:
    before, after = _variants(old), _variants(new)
    if len(before) > 1 or len(after) > 1:
        for one in before:
            if not any(not list(narrows(one, other, schemas)) for other in after):
                yield f"{_name(one)} is not taken any more, or not all of it"
        return
    if lost := _types(old) - _types(new):
        yield f"type {' or '.join(sorted(lost))} is not taken any more"
        return
    yield from _narrower_values(old, new)
    yield from _narrower_fields(old, new, schemas)
    if "items" in new:
        for reason in narrows(old.get("items", {}), new["items"], schemas):
            yield f"items: {reason}"


def _narrower_values(old: Schema, new: Schema) -> Iterator[str]:
    if (values := _values(new)) is not None:
        known = _values(old)
        if known is None:
            yield f"only {', '.join(map(repr, values))} are taken now"
        elif lost := [one for one in known if one not in values]:
            yield f"{', '.join(map(repr, lost))} is not taken any more"
    for name in _LOWER_LIMITS:
        nothing = 0 if name in _COUNTS else float("-inf")
        if name in new and new[name] > old.get(name, nothing):
            yield f"{name} is {new[name]}, was {old.get(name, 'none')}"
    for name in _UPPER_LIMITS:
        if name in new and new[name] < old.get(name, float("inf")):
            yield f"{name} is {new[name]}, was {old.get(name, 'none')}"
    for name in _EXACT:
        if name in new and new[name] != old.get(name):
            yield f"{name} is {new[name]}, was {old.get(name, 'none')}"


def _narrower_fields(old: Schema, new: Schema, schemas: Schemas) -> Iterator[str]:
    before, after = old.get("properties", {}), new.get("properties", {})
    for name in sorted(set(new.get("required", ())) - set(old.get("required", ()))):
        yield f"field {name} is now required"
    closed = new.get("additionalProperties") is False
    if closed and old.get("additionalProperties") is not False and _types(old) >= {"object"} and "properties" in new:
        yield "other fields are not taken any more"
    for name in before:
        if name in after:
            for reason in narrows(before[name], after[name], schemas):
                yield f"field {name}: {reason}"
        elif closed:
            yield f"field {name} removed"


def _breaks_readers(old: Schema, new: Schema, schemas: Schemas) -> Iterator[str]:
    before, after = _variants(old), _variants(new)
    if len(before) > 1 or len(after) > 1:
        for one in after:
            if not any(not list(breaks_readers(other, one, schemas)) for other in before):
                yield f"{_name(one)} is new, or another"
        return
    if more := _types(new) - _types(old):
        yield f"type may be {' or '.join(sorted(more))} now"
        return
    yield from _broken_fields(old, new, schemas)
    for name in ("items", "additionalProperties"):
        if isinstance(old.get(name), Mapping) and isinstance(new.get(name), Mapping):
            for reason in breaks_readers(old[name], new[name], schemas):
                yield f"{name}: {reason}"


def _broken_fields(old: Schema, new: Schema, schemas: Schemas) -> Iterator[str]:
    after = new.get("properties", {})
    for name, before in sorted(old.get("properties", {}).items()):
        if name not in after:
            yield f"field {name} removed"
            continue
        if name in old.get("required", ()) and name not in new.get("required", ()):
            yield f"field {name} may be absent now"
        for reason in breaks_readers(before, after[name], schemas):
            yield f"field {name}: {reason}"


def _resolved(schema: Schema, document: Mapping[str, Any]) -> Schema:
    while "$ref" in schema:
        found: Any = document
        for part in schema["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        schema = {**found, **{name: value for name, value in schema.items() if name != "$ref"}}
    return schema


def _expanded(schema: Any, document: Mapping[str, Any], above: tuple[str, ...] = ()) -> Any:  # noqa: ANN401 - any JSON value
    """The schema without words and references; one inside itself stays a name."""
    if isinstance(schema, list):
        return [_expanded(one, document, above) for one in schema]
    if not isinstance(schema, Mapping):
        return schema
    name = schema.get("$ref")
    if name is not None:
        if name in above:
            return name
        schema, above = _resolved(schema, document), (*above, name)
    plain = {key: value for key, value in schema.items() if key not in _WORDS or key == "properties"}
    return {
        key: {one: _expanded(of, document, above) for one, of in value.items()}
        if key == "properties"
        else _expanded(value, document, above)
        for key, value in plain.items()
    }


def _variants(schema: Schema) -> list[Schema]:
    for name in ("anyOf", "oneOf"):
        if name in schema:
            return list(schema[name])
    return [schema]


def _types(schema: Schema) -> frozenset[str]:
    """What a value may be; an integer is a number too."""
    said = schema.get("type")
    if said is None:
        if "properties" in schema:
            return frozenset({"object"})
        values = _values(schema)
        return _ALL_TYPES if values is None else frozenset(_type_of(one) for one in values)
    found = frozenset([said] if isinstance(said, str) else said)
    return found | {"integer"} if "number" in found else found


def _values(schema: Schema) -> list[Any] | None:
    if "const" in schema:
        return [schema["const"]]
    return list(schema["enum"]) if "enum" in schema else None


def _type_of(value: Any) -> str:  # noqa: ANN401 - a JSON value
    for kind, name in ((bool, "boolean"), (int, "integer"), (float, "number"), (str, "string"), (list, "array")):
        if isinstance(value, kind):
            return name
    return "null" if value is None else "object"


def _name(schema: Schema) -> str:
    return str(schema.get("$ref", schema.get("title", schema.get("type", "a variant")))).rpartition("/")[2]
