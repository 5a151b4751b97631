"""The feature catalogue is generated: every declaration is in it once, with what it says, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from feature_jobs.feast_catalog import repository
from feature_jobs.feast_catalog.__main__ import main
from feature_jobs.feast_catalog.declarations import RANKING, catalogue_of
from shared.features.definitions import FEATURES
from shared.features.vector import SCHEMA

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.xdist_group("feast")  # importing Feast takes seconds: once is enough


def test_every_declaration_is_a_field_of_its_view_with_type_default_and_description() -> None:
    catalogue = catalogue_of()
    assert Counter(catalogue.names) == Counter(SCHEMA.names)
    fields = {
        field.name: (view.name, field) for view in (*catalogue.views, *catalogue.on_demand) for field in view.features
    }
    for feature in FEATURES:
        view, field = fields[feature.name]
        assert view == feature.entity.value
        assert str(field.dtype).lower() == feature.dtype
        assert field.description == feature.description
        assert float(field.tags["default"]) == pytest.approx(feature.default)


def test_a_declaration_that_is_added_or_taken_away_is_so_in_the_catalogue() -> None:
    mine = replace(FEATURES[0], name="of_this_test_alone", description="made here")
    assert Counter(catalogue_of((*FEATURES[1:], mine)).names) == Counter([*SCHEMA.names[1:], mine.name])
    assert "of_this_test_alone" in repository.listing(catalogue_of((mine, *FEATURES)))


def test_the_registry_says_the_same_after_it_was_written_and_read(tmp_path: Path) -> None:
    repository.apply(tmp_path)
    repository.apply(tmp_path)
    store = repository.open_store(tmp_path)
    service = store.get_feature_service(RANKING)
    named = [field.name for projection in service.feature_view_projections for field in projection.features]
    assert Counter(named) == Counter(SCHEMA.names)
    assert service.tags["schema"] == SCHEMA.digest
    assert {entity.name for entity in store.list_entities()} == {"user", "item"}
    configuration = yaml.safe_load((tmp_path / "feast" / repository.CONFIGURATION).read_text())
    assert configuration["online_store"] == {"type": configuration["online_store"]["type"], "data": str(tmp_path)}


def test_the_command_lists_without_writing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", str(tmp_path), "--list"]) == 0
    said = capsys.readouterr().out
    assert all(f" {name} " in said for name in SCHEMA.names)
    assert not list(tmp_path.iterdir())


def test_usage_data_is_off_before_feast_is_imported() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "FEAST_USAGE"}
    code = "import sys, os, feature_jobs.feast_catalog; print(os.environ['FEAST_USAGE'], 'feast' in sys.modules)"
    said = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert said.stdout.split() == ["False", "False"]
