"""Every route of the API says who may call it."""

from __future__ import annotations

from fastapi.routing import APIRoute, iter_route_contexts

from functions.api.access import Access
from functions.api.app import create_app
from functions.bootstrap import Services


def nothing() -> Services:
    raise AssertionError("no route is called here")


def test_every_route_names_exactly_one_audience() -> None:
    routes = [one.original_route for one in iter_route_contexts(create_app(nothing, lambda: None).routes)]
    found = {
        (route.path, *sorted(route.methods or ())): [
            one.call for one in route.dependant.dependencies if isinstance(one.call, Access)
        ]
        for route in routes
        if isinstance(route, APIRoute)
    }
    assert found
    assert {route: len(named) for route, named in found.items() if len(named) != 1} == {}
