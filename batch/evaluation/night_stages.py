"""The night's own stages in this process, each skipped where it stands made from the same inputs."""

from __future__ import annotations

import hashlib
import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

from batch.evaluation.cost import Meter
from batch.evaluation.report import Part
from batch.run_nightly import PIPELINE, Stage, read_stages
from shared.errors import ConfigurationError, RecommndrError

RECORDS: Final = "nightly/.stages"
"""Below a shop's folder: what each stage was made from, and how long it took."""


class StageFailed(RecommndrError):
    """A stage of the night ended with another exit code than 0."""


class StageRecord(msgspec.Struct, frozen=True):
    """`made_from` is a digest of arguments, code and inputs; `part` is what making took."""

    made_from: str
    part: Part


@dataclass(frozen=True, slots=True)
class StageRun:
    """Stages of dvc.yaml to run on a shop's folder, in the pipeline's order.

    `more` are arguments that a stage gets behind its own; `inputs` are files that a stage reads and dvc.yaml does not
    name among its dependencies.
    """

    data: Path
    names: Sequence[str]
    master: str = "local[*]"
    more: Mapping[str, Sequence[str]] = field(default_factory=dict)
    inputs: Mapping[str, Sequence[Path]] = field(default_factory=dict)
    pipeline: Path = PIPELINE


def run_stages(run: StageRun, say: Callable[[str], None]) -> list[Part]:
    """What each stage took when it was made, now or by an earlier call.

    A stage is skipped when its outputs stand and its arguments, the code and the files that dvc.yaml names as its
    dependencies are as they were. Raises StageFailed with what to do next.
    """
    values = {"data": str(run.data), "redis": "", "master": run.master}
    stages = {stage.name: stage for stage in read_stages(run.pipeline, values)}
    unknown = set(run.names) - set(stages)
    if unknown:
        raise ConfigurationError(f"{run.pipeline} has no stage {', '.join(sorted(unknown))}")
    document = yaml.safe_load(run.pipeline.read_text(encoding="utf-8"))["stages"]
    made_from: dict[str, str] = {}
    parts: list[Part] = []
    try:
        for name in (name for name in stages if name in run.names):
            key = _made_from(run, stages[name], document[name], made_from)
            made_from |= dict.fromkeys(_outputs(document[name]), key)
            record = read_record(run.data, name)
            if record is None or record.made_from != key or not _stands(run.data, document[name]):
                record = _make(run, stages[name], key, say)
            else:
                say(f"{name}: stands, made in {record.part.seconds:.0f} s")
            parts.append(record.part)
    finally:
        if "pyspark.sql" in sys.modules:
            importlib.import_module("batch.spark").stop_session()
    return parts


def read_record(data: Path, name: str) -> StageRecord | None:
    """What a stage of this folder was made from; None where no run has finished it."""
    try:
        return msgspec.json.decode((data / RECORDS / f"{name}.json").read_bytes(), type=StageRecord)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def _make(run: StageRun, stage: Stage, key: str, say: Callable[[str], None]) -> StageRecord:
    path = run.data / RECORDS / f"{stage.name}.json"
    path.unlink(missing_ok=True)
    say(f"{stage.name} (python -m {stage.module})")
    meter = Meter()
    with meter.part(stage.name):
        code = importlib.import_module(stage.module).main([*stage.argv, *run.more.get(stage.name, ())])
    if code:
        raise StageFailed(f"stage {stage.name} ended with exit code {code}; mend what it says above and run this again")
    record = StageRecord(key, meter.parts[0])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.encode(record))
    return record


def _made_from(run: StageRun, stage: Stage, entry: Mapping[str, Any], upstream: Mapping[str, str]) -> str:
    digest = hashlib.sha256(msgspec.json.encode([stage.module, list(run.more.get(stage.name, ()))]))
    for name in entry.get("deps", ()):
        digest.update(f"\n{name} ".encode())
        if name in upstream:
            digest.update(upstream[name].encode())
        else:
            place = name.replace("${data}", str(run.data))
            _update(digest, Path(place) if place != name else run.pipeline.parent / name)
    for path in run.inputs.get(stage.name, ()):
        _update(digest, path)
    return digest.hexdigest()


def _update(digest: Any, path: Path) -> None:  # noqa: ANN401 - hashlib does not name the type of its objects
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
    for file in files:
        digest.update(file.name.encode())
        digest.update(file.read_bytes() if file.exists() else b"\0")


def _outputs(entry: Mapping[str, Any]) -> list[str]:
    return [name for out in entry.get("outs", ()) for name in ((out,) if isinstance(out, str) else out)]


def _stands(data: Path, entry: Mapping[str, Any]) -> bool:
    return all(Path(name.replace("${data}", str(data))).exists() for name in _outputs(entry))
