"""Keeps `--dist loadgroup` working: pytest-xdist 3.8 marks groups in a field that pytest 9.2 reads no more."""

from __future__ import annotations

import pytest


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Write each group where pytest looks for it."""
    for item in items:
        grouped = item.__dict__.get("_nodeid")  # "...@group", written by xdist's own hook in a worker
        if grouped is not None:
            item._id = grouped  # type: ignore[attr-defined,unused-ignore]  # where pytest 9.2 keeps a node's id
