"""The events that POST /events takes, as the document tells them: from the types that decode them."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from functions.api.identifiers import ADDRESSABLE_ID, PLAIN_ID
from functions.event_intake import MOST_EVENTS
from shared.events import BEHAVIOUR, Event, EventType, ItemChanges, Preferences

_REF: Final = "#/components/schemas/"
_DESCRIPTIONS: Final = {
    "event_id": "Yours, unique: sent twice it counts once",
    "recommendation_id": "Of the page this follows from",
    "session_id": "Without one, a session ends after 30 minutes of silence",
    "context": "`device` and `surface` are what the parameters of a page are; the rest is kept",
}


def events_schema() -> dict[str, Any]:
    """The body: an array of 1 to 500 events, or {"events": [...]}."""
    names = "BehaviourEvent", "ItemUpdatedEvent", "PreferencesSetEvent"
    event = {"oneOf": [{"$ref": f"{_REF}{name}"} for name in names]}
    events = {"type": "array", "minItems": 1, "maxItems": MOST_EVENTS, "items": event}
    envelope = {
        "type": "object",
        "title": "EventBatch",
        "required": ["events"],
        "additionalProperties": False,
        "properties": {"events": events},
    }
    return {"oneOf": [events, envelope]}


def event_schemas() -> dict[str, Any]:
    """The components that `events_schema` names."""
    _, parts = msgspec.json.schema_components((Event, ItemChanges, Preferences), ref_template=_REF + "{name}")
    preferences = parts["Preferences"]
    preferences["properties"]["hidden_items"]["items"] |= PLAIN_ID
    changes = parts["ItemChanges"]
    fields = parts["Event"]["properties"]
    item_updated, preferences_set = EventType.ITEM_UPDATED.value, EventType.PREFERENCES_SET.value
    return {
        "ItemChanges": changes,
        "Preferences": preferences,
        "BehaviourEvent": _event(
            "BehaviourEvent",
            "A shopper did something with an item.",
            sorted(kind.value for kind in BEHAVIOUR),
            fields,
            required=("user_id", "item_id"),
        ),
        "ItemUpdatedEvent": _event(
            "ItemUpdatedEvent",
            "The catalogue's fields in `changes` are set, the others stay.",
            [item_updated],
            fields,
            required=("item_id",),
            changes="ItemChanges",
        ),
        "PreferencesSetEvent": _event(
            "PreferencesSetEvent",
            "`changes` are all that the user asks for from now on.",
            [preferences_set],
            fields,
            required=("user_id",),
            changes="Preferences",
        ),
    }


def _event(
    title: str,
    description: str,
    kinds: list[str],
    fields: dict[str, Any],
    *,
    required: tuple[str, ...],
    changes: str | None = None,
) -> dict[str, Any]:
    """One kind of event: the ids it needs are texts, those of other kinds are null or absent."""
    told = {name: {key: of for key, of in field.items() if key != "default"} for name, field in fields.items()}
    told["event_type"] = {"type": "string", "enum": kinds}
    told["event_id"] = {"type": "string", **PLAIN_ID}
    told["session_id"] = told["recommendation_id"] = {"anyOf": [{"type": "string", **PLAIN_ID}, {"type": "null"}]}
    for name in ("user_id", "item_id"):
        told[name] = {"type": "string", **ADDRESSABLE_ID} if name in required else {"type": "null"}
    told["changes"] = {"type": "null"} if changes is None else {"$ref": f"{_REF}{changes}"}
    for name, text in _DESCRIPTIONS.items():
        told[name] = {**told[name], "description": text}
    always = ["event_id", "event_type", "occurred_at", *required, *([] if changes is None else ["changes"])]
    return {
        "title": title,
        "description": description,
        "type": "object",
        "additionalProperties": False,
        "required": always,
        "properties": told,
    }
