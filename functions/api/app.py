"""The FastAPI application: its routes, its documentation, its life."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool
from fastapi.middleware.cors import CORSMiddleware
from fastapi.routing import APIRoute

from functions.api import (
    browse,
    catalogue,
    catalogue_batch,
    dead_letters,
    erasures,
    events,
    health,
    items,
    preferences,
    problems,
    profiles,
    recommend,
    recommendations,
    related,
    releases,
    search,
)
from functions.api.access_document import document_access
from functions.api.events_document import event_schemas
from functions.api.request_boundary import RequestBoundary
from functions.api.request_limits import RequestLimits
from functions.api.worker import WorkerServices
from functions.bootstrap import Services

DESCRIPTION: Final = """Recommendations that react to the last click. Send what shoppers do to `POST /events`; ask
`GET /recommend/{user_id}` for the next page. Errors are RFC 9457 problem details."""


def create_app(
    compose_once: Callable[[], Services], close: Callable[[], None], cors_origins: tuple[str, ...] = ()
) -> FastAPI:
    """The application over services that `compose_once` gives when they are first needed.

    Under a server with lifespans they are composed before the first request and closed after the last one.
    """
    worker = WorkerServices(compose_once)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await run_in_threadpool(worker.get)
        try:
            yield
        finally:
            await run_in_threadpool(close)
            worker.forget()

    app = _Api(
        title="Recommndr",
        version="1",
        description=DESCRIPTION,
        lifespan=lifespan,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=_operation_id,
    )
    app.state.worker = worker
    for module in (
        recommend,
        recommendations,
        related,
        search,
        items,
        browse,
        catalogue,
        catalogue_batch,
        profiles,
        preferences,
        erasures,
        events,
        releases,
        dead_letters,
        health,
    ):
        app.include_router(module.router)
    problems.install(app)
    # The last one added is the outermost.
    app.add_middleware(RequestLimits, worker=worker)
    if cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(cors_origins),
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "X-API-Key", "X-Request-ID"],
            expose_headers=["X-Request-ID", "Retry-After", "RateLimit", "RateLimit-Policy"],
        )
    app.add_middleware(RequestBoundary, worker=worker)
    return app


class _Api(FastAPI):
    """With a document that says what access control and limits answer, and what an event is."""

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document, made once."""
        if self.openapi_schema is None:
            document = document_access(self, super().openapi())
            document["components"]["schemas"].update(event_schemas())
        return super().openapi()


def _operation_id(route: APIRoute) -> str:
    return route.name
