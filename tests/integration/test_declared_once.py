"""Adding a feature is one declaration: a copy of the code gets one, in a file of its own, and everything has it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from feature_jobs.feast_catalog.declarations import catalogue_of
from local.embedded import EmbeddedServers
from shared.features.declaration import Feature
from shared.features.definitions import FEATURES
from tests.integration.added_feature_story import NAME

ROOT = Path(__file__).resolve().parents[2]
CODE = ("functions", "feature_jobs", "local", "shared", "tests")
DECLARATION = f'''"""A feature in a file of its own."""

from shared.events import EventType
from shared.features.aggregations import Count
from shared.features.declaration import Entity, Feature

REMOVALS = Count((EventType.REMOVE_FROM_CART,))
ADDED = Feature(
    "{NAME}",
    Entity.USER,
    "what she took out again",
    lambda user: user.value(REMOVALS),
    (REMOVALS,),
)
'''


@pytest.fixture
def copy_with_one_more(tmp_path: Path) -> Path:
    """The code, with a new file and the one line in `definitions.py` that takes it in."""
    copy = tmp_path / "code"
    for folder in CODE:
        shutil.copytree(ROOT / folder, copy / folder)
    features = copy / "shared/features"
    (features / "cart_removals.py").write_text(DECLARATION, encoding="utf-8")
    definitions = (features / "definitions.py").read_text(encoding="utf-8")
    imported = "from shared.features.declaration import Entity, Feature\n"
    listed = "USER_FEATURES: Final = [\n"
    assert definitions.count(imported) == definitions.count(listed) == 1
    definitions = definitions.replace(imported, f"from shared.features.cart_removals import ADDED\n{imported}")
    definitions = definitions.replace(listed, f"{listed}    ADDED,\n")
    (features / "definitions.py").write_text(definitions, encoding="utf-8")
    return copy


def test_one_more_declaration_is_folded_served_learnt_from_and_documented(
    servers: EmbeddedServers, copy_with_one_more: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "tests.integration.added_feature_story"]
    told = subprocess.run(
        [*command, servers.state_url, servers.log_url, str(tmp_path / "data")],
        cwd=copy_with_one_more,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert told.returncode == 0, told.stderr[-3000:]


def test_one_more_declaration_is_in_the_feature_catalogue() -> None:
    # Here and not in the copy: Feast takes seconds to import, and this process has it anyway.
    declared: dict[str, Feature] = {}
    exec(DECLARATION, declared)
    added = declared["ADDED"]
    assert sorted(catalogue_of().names) == sorted(one.name for one in FEATURES), "its list is the declarations"
    assert set(catalogue_of((*FEATURES, added)).names) == {*catalogue_of().names, NAME}
