"""Ids that can stand in an address: what browsers, proxies and Azure's route templates would rewrite is refused."""

from __future__ import annotations

from shared.errors import InvalidIdentifier
from shared.events import check_id


def check_addressable(value: str, name: str) -> str:
    """Return `value` if it is an id that an address can carry.

    Raises:
        InvalidIdentifier: it is no id (see `check_id`), is "." or "..", holds braces, or was no valid UTF-8.
    """
    check_id(value, name)
    if value in {".", ".."}:
        raise InvalidIdentifier(f"{name} may not be {value!r}: addresses resolve it away")
    if "{" in value or "}" in value:
        raise InvalidIdentifier(f"{name} may not contain braces: fill the placeholder in")
    if "\ufffd" in value:
        raise InvalidIdentifier(f"{name} is not valid UTF-8")
    return value
