"""Every route of the API says who may call it."""

from __future__ import annotations

from fastapi.routing import APIRoute, iter_route_contexts

from functions.api.access import Access
from functions.api.app import create_app
from functions.bootstrap import Services


def nothing() -> Services:
    raise AssertionError("no route is called here")


def test_every_route_names_exactly_one_audience() -> None:
    found = {
        context.path: [one.call for one in context.original_route.dependant.dependencies if isinstance(one.call, Access)]
        for context in iter_route_contexts(create_app(nothing, lambda: None).routes)
        if isinstance(context.original_route, APIRoute)
    }
    assert found
    assert {path: len(named) for path, named in found.items() if len(named) != 1} == {}
