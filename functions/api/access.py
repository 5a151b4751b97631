"""Who may call a route: each route names exactly one of these as a dependency."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final

from fastapi import Depends


class Audience(StrEnum):
    """Whom a route is for; what each may present stands in docs/access.md."""

    ANYONE = "anyone"
    """No credentials."""
    READER = "reader"
    """No credentials; but a `user_id` among the query's parameters must be the caller's own."""
    SHOPPER = "shopper"
    """The user whose `user_id` stands in the path, a service or an operator."""
    SERVICE = "service"
    """The shop's back end, or an operator."""
    OPERATOR = "operator"


class Access:
    """A route's dependency; `audience` is read by the table of routes and roles."""

    def __init__(self, audience: Audience) -> None:
        self.audience = audience

    async def __call__(self) -> None:
        """Access control is not switched on yet: everyone may."""


ANYONE: Final[Any] = Depends(Access(Audience.ANYONE))
READER: Final[Any] = Depends(Access(Audience.READER))
SHOPPER: Final[Any] = Depends(Access(Audience.SHOPPER))
SERVICE: Final[Any] = Depends(Access(Audience.SERVICE))
OPERATOR: Final[Any] = Depends(Access(Audience.OPERATOR))
