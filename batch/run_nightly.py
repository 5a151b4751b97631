"""The night in one process: seal what has landed, then every stage of dvc.yaml in its order, on one Spark session."""

from __future__ import annotations

import argparse
import importlib
import os
import shlex
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any, Final

import yaml

from batch.night_lock import one_night
from shared.adapters.folder_blob import FolderBlobStore
from shared.adapters.redis_connection import connect
from shared.adapters.redis_state import RedisStateStore
from shared.cli import command
from shared.errors import ConfigurationError, InfrastructureFault
from shared.events import EventSource
from shared.ingest.lake import read_manifest
from shared.ingest.seal import seal_landing
from shared.settings import Settings

PIPELINE: Final = Path(__file__).resolve().parents[1] / "dvc.yaml"
_INTERRUPTED: Final = 130
_REDIS_TIMEOUT_MS: Final = 5000


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage: its name in dvc.yaml, the module behind `python -m`, and the module's arguments."""

    name: str
    module: str
    argv: tuple[str, ...]


def read_stages(pipeline: Path, values: Mapping[str, str]) -> list[Stage]:
    """The stages in order, `${name}` in their commands replaced by `values`, or else by the files under `vars`.

    Raises:
        ConfigurationError: a command that is not `python -m MODULE ARGS`, or names a variable nobody gives.
    """
    document: dict[str, Any] = yaml.safe_load(pipeline.read_text(encoding="utf-8"))
    variables: dict[str, Any] = {}
    for name in document.get("vars", []):
        variables |= yaml.safe_load((pipeline.parent / name).read_text(encoding="utf-8"))
    variables |= values
    stages = []
    for name, stage in document["stages"].items():
        try:
            words = [Template(word).substitute(variables) for word in shlex.split(stage["cmd"])]
        except KeyError as error:
            raise ConfigurationError(f"stage {name} of {pipeline} names {error}, which no variable gives") from error
        if words[:2] != ["python", "-m"] or len(words) < 3:
            raise ConfigurationError(f"stage {name} of {pipeline} must be `python -m MODULE ARGS`")
        stages.append(Stage(name, words[2], tuple(words[3:])))
    return stages


def choose_stages(stages: Sequence[Stage], first: str | None, only: str | None) -> list[Stage]:
    """All stages, those from `first` on, or just one."""
    if only is not None:
        return [stage for stage in stages if stage.name == only]
    names = [stage.name for stage in stages]
    return list(stages[names.index(first) if first is not None else 0 :])


def run_stages(stages: Sequence[Stage], resume: str) -> int:
    """Run them in order until one fails; print what each took, and after a failure how to go on (`resume` --from it).

    Returns 0, 1 after a failure, 130 after Ctrl-C.
    """
    taken: list[tuple[str, float, str]] = []
    code = 0
    for number, stage in enumerate(stages, 1):
        print(f"[{number}/{len(stages)}] {stage.name}", flush=True)
        started = time.perf_counter()
        error = ""
        try:
            code = _main_of(stage)(list(stage.argv))
            if code not in {0, _INTERRUPTED}:
                error = f"ended with exit code {code}; its error stands above"
        except KeyboardInterrupt:
            code = _INTERRUPTED
        except Exception as failure:  # noqa: BLE001 - whatever a stage raises ends the night with its name and its error
            traceback.print_exc()
            code, error = 1, f"{type(failure).__name__}: {failure}"
        taken.append((stage.name, time.perf_counter() - started, "ok" if code == 0 else "failed"))
        if code != 0:
            _print_table(taken)
            said = "was interrupted" if code == _INTERRUPTED else f"failed: {error}"
            sys.stderr.write(
                f"stage {stage.name} {said}\nwhen that is mended, go on with:\n  {resume} --from {stage.name}\n"
            )
            return _INTERRUPTED if code == _INTERRUPTED else 1
    _print_table(taken)
    return 0


def seal_first(data: Path, redis_url: str, settings: Settings) -> None:
    """Move what has landed in Redis into the lake; without a Redis that answers there is nothing to move.

    Ingested history gets rows too: erasures. An event that lands afterwards is for the next night.
    """
    blobs = FolderBlobStore(data)
    manifest = read_manifest(blobs)
    sources = {entry.name: entry.event_source() for entry in (manifest.sources if manifest else ())}
    live = EventSource(settings.event_source, (settings.partition_count,))
    sources.setdefault(live.name, live)
    with connect(redis_url, timeout_ms=_REDIS_TIMEOUT_MS) as client:
        store = RedisStateStore(client, settings.user_key_secret)
        try:
            for source in sources.values():
                count = max(*source.partition_counts, settings.partition_count if source.name == live.name else 0)
                sealed = seal_landing(source.name, range(count), store=store, blobs=blobs)
                if sealed or source.name == live.name:
                    print(f"sealed {sealed:,} landing rows of {source.name}", flush=True)
        except InfrastructureFault as error:
            print(f"nothing sealed: {error}", flush=True)


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the night; 0 when every stage did, 1 when one failed, 2 for wrong arguments, 130 after Ctrl-C."""
    names = [stage.name for stage in read_stages(PIPELINE, {})]
    parser = argparse.ArgumentParser(
        prog="python -m batch.run_nightly", description=__doc__, epilog=f"stages: {', '.join(names)}"
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of the shop")
    parser.add_argument("--master", metavar="URL", help="Spark master (default: as params.yaml says)")
    parser.add_argument(
        "--redis", default="", metavar="URL", help="state and releases (default: the setting REDIS_URL)"
    )
    some = parser.add_mutually_exclusive_group()
    some.add_argument("--from", dest="first", choices=names, metavar="STAGE", help="begin with this stage")
    some.add_argument("--only", choices=names, metavar="STAGE", help="run this stage alone")
    arguments = parser.parse_args(argv)
    settings = Settings.from_environment(os.environ)
    redis_url = arguments.redis or settings.redis_url
    values = {"data": str(arguments.data), "redis": redis_url}
    if arguments.master is not None:
        values["master"] = arguments.master
    stages = choose_stages(read_stages(PIPELINE, values), arguments.first, arguments.only)
    with one_night(arguments.data):
        if stages[0].name == names[0]:
            seal_first(arguments.data, redis_url, settings)
        try:
            return run_stages(stages, _resume_command(arguments))
        finally:
            _stop_spark()


def _resume_command(arguments: argparse.Namespace) -> str:
    words = ["python", "-m", "batch.run_nightly", "--data", str(arguments.data)]
    for name in ("master", "redis"):
        if getattr(arguments, name):
            words += [f"--{name}", getattr(arguments, name)]
    return shlex.join(words)


def _main_of(stage: Stage) -> Any:  # noqa: ANN401 - a module that is known by name only
    return importlib.import_module(stage.module).main


def _print_table(taken: Sequence[tuple[str, float, str]]) -> None:
    width = max(len(name) for name, _, _ in taken)
    print()
    for name, seconds, said in taken:
        print(f"  {name:{width}}  {seconds:8.1f} s  {said}")
    print(f"  {'':{width}}  {sum(seconds for _, seconds, _ in taken):8.1f} s", flush=True)


def _stop_spark() -> None:
    """Stop the session if a stage started one; who never did does not import Spark for it."""
    if "pyspark.sql" in sys.modules:
        importlib.import_module("batch.spark").stop_session()


if __name__ == "__main__":
    sys.exit(main())
