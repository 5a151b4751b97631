"""Who may call a route: each route names exactly one of these as a dependency."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Final

from fastapi import Depends, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.routing import APIRoute

from functions.access.caller import CALLER, Caller, Forbidden, Role, Unauthenticated
from functions.api.worker import WorkerServices


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


_LEAST_ROLE: Final = {
    Audience.ANYONE: Role.ANONYMOUS,
    Audience.READER: Role.SHOPPER,
    Audience.SHOPPER: Role.SHOPPER,
    Audience.SERVICE: Role.SERVICE,
    Audience.OPERATOR: Role.OPERATOR,
}


class Access:
    """A route's dependency; `audience` is read by the table of routes and roles."""

    def __init__(self, audience: Audience) -> None:
        self.audience = audience

    async def __call__(self, request: Request) -> None:
        """Let the request through, or raise.

        Where credentials change nothing they are not looked at: a page of items is there for an expired token too.

        Raises:
            Unauthenticated: credentials are needed and missing, or not valid.
            Forbidden: they are valid and not enough.
            SigningKeysUnavailable: they cannot be verified now.
        """
        if self.audience is Audience.ANYONE:
            return
        users = self._users_asked_for(request)
        if self.audience is Audience.READER and not users:
            return
        worker: WorkerServices = request.app.state.worker
        services = worker.composed
        if services is None:
            services = await run_in_threadpool(worker.get)
        if services.identification is None:
            return
        caller = request.scope.get(CALLER)
        if caller is None:
            caller = await services.identification.identify(request.scope["headers"])
            request.scope[CALLER] = caller
        self._check(caller, users)

    def _users_asked_for(self, request: Request) -> Sequence[str]:
        """Every user the request names: none may be another than the caller, were the parameter given twice."""
        if self.audience is Audience.READER:
            return request.query_params.getlist("user_id")
        if self.audience is Audience.SHOPPER:
            return (request.path_params["user_id"], *request.query_params.getlist("user_id"))
        return ()

    def _check(self, caller: Caller, users: Sequence[str]) -> None:
        if caller.role is Role.ANONYMOUS:
            raise Unauthenticated(f"this needs {_NEEDED[self.audience]}; docs/access.md", presented=False)
        if caller.role < _LEAST_ROLE[self.audience]:
            raise Forbidden(f"this needs {_NEEDED[self.audience]}; yours is valid and not enough")
        if caller.role is Role.SHOPPER and any(user != caller.user_id for user in users):
            raise Forbidden("a shopper's token opens that shopper's own data alone")


def audience_of(route: APIRoute) -> Audience:
    """The one audience that the route names."""
    (named,) = (one.call.audience for one in route.dependant.dependencies if isinstance(one.call, Access))
    return named


_NEEDED: Final = {
    Audience.READER: "the token of the user that user_id names, or a service's key",
    Audience.SHOPPER: "the token of this user, or a service's key",
    Audience.SERVICE: "a service's key",
    Audience.OPERATOR: "an operator's key",
}

ANYONE: Final[Any] = Depends(Access(Audience.ANYONE))
READER: Final[Any] = Depends(Access(Audience.READER))
SHOPPER: Final[Any] = Depends(Access(Audience.SHOPPER))
SERVICE: Final[Any] = Depends(Access(Audience.SERVICE))
OPERATOR: Final[Any] = Depends(Access(Audience.OPERATOR))
