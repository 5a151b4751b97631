"""A shop's Feast repository below its data folder: configuration and registry, both made anew each time."""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml
from feast import FeatureStore

from feature_jobs.feast_catalog import offline_store, online_store
from feature_jobs.feast_catalog.declarations import PROJECT, Catalogue, catalogue_of
from shared.errors import ConfigurationError

CONFIGURATION = "feature_store.yaml"
REGISTRY = "registry.db"


def folder_of(data: Path) -> Path:
    """Where the catalogue of the shop in `data` stands."""
    return data.resolve() / "feast"


def configuration_of(data: Path) -> dict[str, Any]:
    """The content of feature_store.yaml: class paths and folders, and no address or secret of a server."""
    return {
        "project": PROJECT,
        "provider": "local",
        "registry": str(folder_of(data) / REGISTRY),
        "online_store": {"type": online_store.CLASS_PATH, "data": str(data.resolve())},
        "offline_store": {"type": offline_store.CLASS_PATH, "data": str(data.resolve())},
        "entity_key_serialization_version": 3,
    }


def apply(data: Path) -> FeatureStore:
    """Write configuration and registry, and return the store over them. Nothing is written to Redis or the lake.

    The registry is removed first: it is made from the declarations alone, and what they no longer hold goes.
    """
    folder = folder_of(data)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIGURATION).write_text(yaml.safe_dump(configuration_of(data), sort_keys=False), encoding="utf-8")
    (folder / REGISTRY).unlink(missing_ok=True)
    store = open_store(data)
    with warnings.catch_warnings():
        # Feast calls on-demand views experimental since 2022 and says so each time one is registered.
        warnings.filterwarnings("ignore", "On demand feature view is an experimental feature", RuntimeWarning)
        store.apply(catalogue_of().objects)
    return store


def open_store(data: Path) -> FeatureStore:
    """The store over a catalogue that was applied."""
    return FeatureStore(repo_path=str(folder_of(data)))


def serve_pages(store: FeatureStore, host: str, port: int) -> None:
    """Serve Feast's pages until Ctrl-C; they need no network. Raises ConfigurationError without their packages."""
    if find_spec("grpc") is None:
        raise ConfigurationError(
            "Feast's pages need the packages of feast[grpcio], which are not installed: make setup"
        )
    store.serve_ui(host=host, port=port)


def summary(catalogue: Catalogue | None = None) -> str:
    """How much the catalogue holds, in words."""
    held = catalogue or catalogue_of()
    return (
        f"{len(held.names)} features in {len(held.views)} feature views and {len(held.on_demand)} on-demand views, "
        f"{len(held.entities)} entities, {len(held.services)} feature services"
    )


def listing(catalogue: Catalogue | None = None) -> str:
    """One line a feature: view, name, type, default, description."""
    held = catalogue or catalogue_of()
    rows = [
        (view.name, field.name, str(field.dtype), field.tags["default"], field.description)
        for view in (*held.views, *held.on_demand)
        for field in view.features
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4]]) for row in rows
    ]
    return "\n".join([*lines, summary(held)])
