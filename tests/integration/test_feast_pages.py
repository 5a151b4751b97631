"""Feast's pages over our registry: they answer, list what is declared, and load nothing from another host."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from feature_jobs.feast_catalog import repository
from feature_jobs.feast_catalog.declarations import PROJECT
from shared.errors import ConfigurationError
from shared.features.vector import SCHEMA

pytestmark = pytest.mark.xdist_group("feast")  # importing Feast takes seconds: once is enough


@pytest.mark.filterwarnings("ignore:The `root_path` parameter is deprecated")  # Feast's own call of FastAPI
def test_the_pages_list_every_feature_and_need_no_network(tmp_path: Path) -> None:
    pytest.importorskip("grpc", reason="Feast's pages need the packages of feast[grpcio]")
    from feast.ui_server import get_app

    with TestClient(get_app(repository.apply(tmp_path), PROJECT)) as client:
        page = client.get("/")
        assert page.status_code == 200
        loaded = re.findall(r'(?:src|href)="([^"]+)"', page.text)
        assert loaded
        assert all(one.startswith("/") for one in loaded)
        assert all(client.get(one).status_code == 200 for one in loaded)
        listed: Any = client.get("/api/v1/features", params={"project": PROJECT}).json()
    assert Counter(feature["name"] for feature in listed["features"]) == Counter(SCHEMA.names)


def test_without_their_packages_the_command_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repository, "find_spec", lambda _name: None)
    with pytest.raises(ConfigurationError, match="grpcio"):
        repository.serve_pages(repository.apply(tmp_path), "127.0.0.1", 0)
