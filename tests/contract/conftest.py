"""One Azurite for the session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.azurite_server import Azurite, NoAzurite, running_azurite


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    try:
        with running_azurite(tmp_path_factory.mktemp("azurite")) as server:
            yield server
    except NoAzurite as error:
        pytest.skip(f"no Azurite on this machine: {error}")
