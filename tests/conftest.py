"""For every test: groups that stay on one worker, and a logging that is as the test before found it."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep `--dist loadgroup` working: pytest-xdist 3.8 marks groups in a field that pytest 9.2 reads no more."""
    for item in items:
        grouped = item.__dict__.get("_nodeid")  # "...@group", written by xdist's own hook in a worker
        if grouped is not None:
            item._id = grouped  # type: ignore[attr-defined,unused-ignore]  # where pytest 9.2 keeps a node's id


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """A worker that a test composes sets the style and the level of everything logged in the process."""
    root = logging.getLogger()
    formatters = {handler: handler.formatter for handler in root.handlers}
    levels = {name: logging.getLogger(name).level for name in (None, "functions", "shared", "local")}
    yield
    for handler, formatter in formatters.items():
        handler.setFormatter(formatter)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
