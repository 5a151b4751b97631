"""Who calls: the roles, and the two ways of not being let in."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from shared.errors import InfrastructureFault, RecommndrError


class Role(IntEnum):
    """What a caller is; a higher role may do whatever a lower one may."""

    ANONYMOUS = 0
    SHOPPER = 1
    SERVICE = 2
    OPERATOR = 3


@dataclass(frozen=True, slots=True)
class Caller:
    """A caller as the credentials prove; `counted_as` names the caller to the rate limit and holds no secret."""

    role: Role
    user_id: str | None
    counted_as: str


CALLER: Final = "recommndr.caller"
"""Where the ASGI scope keeps the caller, once there is one."""
ANONYMOUS: Final = Caller(Role.ANONYMOUS, None, "")


class Unauthenticated(RecommndrError):
    """No credentials were presented where some are needed, or those presented are not valid."""

    def __init__(self, message: str, *, presented: bool) -> None:
        super().__init__(message)
        self.presented = presented


class Forbidden(RecommndrError):
    """The caller is known and may not do this."""


class SigningKeysUnavailable(InfrastructureFault):
    """A token names a signing key that is not known, and the document of keys cannot be read now."""
