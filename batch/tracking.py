"""MLflow in one place: the night's run, the registered ranker, and the alias of what is published."""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import msgspec
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from shared.errors import ConfigurationError, InfrastructureFault
from shared.settings import Settings

EXPERIMENT: Final = "recommndr"
REGISTERED_MODEL: Final = "recommndr-ranker"
CHAMPION: Final = "champion"
RELEASE_TAG: Final = "release_id"

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # a nightly job tells nobody that it ran
for _chatty in ("mlflow.store.db.utils", "alembic"):
    logging.getLogger(_chatty).setLevel(logging.WARNING)


@dataclass(frozen=True)
class Tracking:
    """Where runs go: `uri` is MLflow's tracking and registry address, `data` the shop's folder the runs are about."""

    uri: str
    data: Path

    @classmethod
    def of(cls, data: Path) -> Self:
        """As the setting MLFLOW_TRACKING_URI says; by default SQLite and plain files inside the shop's folder."""
        uri = Settings.from_environment(os.environ).mlflow_tracking_uri
        return cls(uri or f"sqlite:///{(data / 'mlflow.db').resolve()}", data.resolve())

    def start_run(
        self, *, params: Mapping[str, object], metrics: Mapping[str, float], files: Sequence[Path] = ()
    ) -> str:
        """Log a run whole and return its id; tags name the git revision and the fingerprint of the interactions.

        Raises InfrastructureFault when the tracking store does not answer.
        """
        client = self._client()
        with _Faults(self.uri):
            run = client.create_run(self._experiment_id(client), tags=_origin(self.data))
            run_id = str(run.info.run_id)
            client.log_batch(
                run_id,
                metrics=[Metric(name, float(value), int(run.info.start_time), 0) for name, value in metrics.items()],
                params=[Param(name, str(value)[:6000]) for name, value in params.items()],
            )
            for path in files:
                client.log_artifact(run_id, str(path))
            client.set_terminated(run_id)
        return run_id

    def log(self, data: Path, *, metrics: Mapping[str, float], files: Sequence[Path] = ()) -> None:
        """Add to the night's run, the one that nightly/ranker/run.json below `data` names.

        Raises ConfigurationError before the ranker was trained, InfrastructureFault when the store does not answer.
        """
        run_id = run_of_night(data)
        if run_id is None:
            raise ConfigurationError(f"no run of this night; run python -m batch.train_ranker --data {data} first")
        client = self._client()
        with _Faults(self.uri):
            at = int(client.get_run(run_id).info.start_time)
            client.log_batch(run_id, metrics=[Metric(name, float(value), at, 0) for name, value in metrics.items()])
            for path in files:
                client.log_artifact(run_id, str(path))

    def register(self, release_id: str, run_id: str, ranker: Path, manifest: Path) -> str:
        """Register the release's ranker and return its version; the same release is registered once."""
        client = self._client()
        with _Faults(self.uri):
            held = self._version_of(client, release_id)
            if held is not None:
                return held
            for path in (ranker, manifest):
                client.log_artifact(run_id, str(path), f"release/{release_id}")
            try:
                client.get_registered_model(REGISTERED_MODEL)
            except MlflowException:
                client.create_registered_model(REGISTERED_MODEL, description="The ranker of each published release")
            source = f"{client.get_run(run_id).info.artifact_uri}/release/{release_id}"
            made = client.create_model_version(
                REGISTERED_MODEL, source=source, run_id=run_id, tags={RELEASE_TAG: release_id}
            )
        return str(made.version)

    def promote(self, release_id: str) -> str | None:
        """Move the alias `champion` to the release's version and return it; None where it was never registered."""
        client = self._client()
        with _Faults(self.uri):
            version = self._version_of(client, release_id)
            if version is not None:
                client.set_registered_model_alias(REGISTERED_MODEL, CHAMPION, version)
        return version

    def _client(self) -> MlflowClient:
        return MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    def _experiment_id(self, client: MlflowClient) -> str:
        held = client.get_experiment_by_name(EXPERIMENT)
        if held is not None:
            return str(held.experiment_id)
        artifacts = (self.data / "mlartifacts").as_uri() if self.uri.startswith("sqlite:") else None
        return str(client.create_experiment(EXPERIMENT, artifact_location=artifacts))

    def _version_of(self, client: MlflowClient, release_id: str) -> str | None:
        found = client.search_model_versions(f"name = '{REGISTERED_MODEL}' and tags.{RELEASE_TAG} = '{release_id}'")
        return max((str(one.version) for one in found), key=int, default=None)


def run_of_night(data: Path) -> str | None:
    """The MLflow run that trained this night's ranker, or None."""
    try:
        return str(msgspec.json.decode((data / "nightly/ranker/run.json").read_bytes(), type=dict[str, str])["run_id"])
    except FileNotFoundError:
        return None


class _Faults:
    """What MLflow raises as the fault it is."""

    def __init__(self, uri: str) -> None:
        self._uri = uri

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        """Translate."""
        if isinstance(error, MlflowException):
            where = self._uri.rpartition("@")[2]
            raise InfrastructureFault(f"the tracking store at {where} failed: {error}") from error


def _origin(data: Path) -> dict[str, str]:
    summary = data / "nightly/interactions/summary.json"
    tags = {"git_revision": _revision(), "shop_folder": data.name}
    if summary.exists():
        tags["data_fingerprint"] = msgspec.json.decode(summary.read_bytes())["fingerprint"]
    return tags


def _revision() -> str:
    """The commit of this checkout, with a plus when files differ from it; "unknown" outside of one."""
    root = Path(__file__).resolve().parents[1]

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"
