"""Requirement files: exact versions, no addresses, and a request path without the packages of the night."""

from __future__ import annotations

import ast
import re
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

FILES = ["requirements.txt", "requirements-batch.txt", "requirements-dev.txt", "constraints.txt"]
INCLUDES = {
    "requirements.txt": ["-c constraints.txt"],
    "requirements-batch.txt": ["-r requirements.txt"],
    "requirements-dev.txt": ["-r requirements-batch.txt"],
    "constraints.txt": [],
}
NIGHT_ONLY = {"feast", "great-expectations", "implicit", "lightgbm", "mlflow", "pandas", "pyspark"}
REQUEST_PATH = ["function_app.py", "functions", "shared"]
FIRST_PARTY = {"functions", "shared"}


def lines(root: Path, name: str) -> list[str]:
    text = (root / name).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def requirements(root: Path, name: str) -> dict[str, Requirement]:
    listed = [Requirement(line) for line in lines(root, name) if not line.startswith("-")]
    return {canonicalize_name(requirement.name): requirement for requirement in listed}


@pytest.mark.parametrize("name", FILES)
def test_every_version_is_exact_and_nothing_has_an_address(root: Path, name: str) -> None:
    options = [line for line in lines(root, name) if line.startswith("-")]
    assert options == INCLUDES[name]
    for requirement in requirements(root, name).values():
        assert re.fullmatch(r"==[0-9][0-9a-z.]*", str(requirement.specifier)), (
            f"{name}: {requirement} is no exact version"
        )
        assert requirement.url is None, f"{name}: {requirement} names an address"
    assert "//" not in (root / name).read_text(encoding="utf-8")


def test_constraints_hold_every_requirement_at_its_version(root: Path) -> None:
    held = requirements(root, "constraints.txt")
    for name in FILES[:-1]:
        for package, requirement in requirements(root, name).items():
            assert held[package].specifier == requirement.specifier, f"{name}: {package}; run 'make lock'"


def test_constraints_hold_everything_the_requirements_bring(root: Path) -> None:
    held = set(requirements(root, "constraints.txt"))
    brought = closure({package for name in FILES[:-1] for package in requirements(root, name)})
    assert brought <= held, f"not held: {sorted(brought - held)}; run 'make lock'"


def test_the_request_path_neither_names_nor_brings_the_packages_of_the_night(root: Path) -> None:
    brought = closure(set(requirements(root, "requirements.txt")))
    assert len(brought) > len(requirements(root, "requirements.txt")), "the closure follows dependencies"
    assert not brought & NIGHT_ONLY


def test_the_request_path_imports_only_what_it_deploys(root: Path) -> None:
    deployed = closure(set(requirements(root, "requirements.txt")))
    providers = metadata.packages_distributions()
    missing = [
        f"{path.relative_to(root)} imports {module}"
        for path in source_files(root)
        for module in sorted(imported_modules(path) - FIRST_PARTY - set(sys.stdlib_module_names))
        if not {canonicalize_name(name) for name in providers.get(module, [])} & deployed
    ]
    assert not missing, "not in requirements.txt, so absent on Azure: " + "; ".join(missing)


def test_one_python_version_everywhere(root: Path) -> None:
    version = (root / ".python-version").read_text(encoding="utf-8").strip()
    configuration = (root / "pyproject.toml").read_text(encoding="utf-8")
    assert f'python_version = "{version}"' in configuration
    assert f'target-version = "py{version.replace(".", "")}"' in configuration


def closure(packages: set[str]) -> set[str]:
    """Return `packages` and all they depend on here, read from the installed packages' own metadata."""
    waiting = [(package, "") for package in packages]
    seen: set[tuple[str, str]] = set()
    found: set[str] = set()
    while waiting:
        package, extra = waiting.pop()
        if (package, extra) in seen:
            continue
        seen.add((package, extra))
        try:
            needs = metadata.requires(package) or []
        except metadata.PackageNotFoundError:
            continue  # of another platform
        found.add(package)
        for requirement in map(Requirement, needs):
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                waiting += [(canonicalize_name(requirement.name), wanted) for wanted in {"", *requirement.extras}]
    return found


def source_files(root: Path) -> list[Path]:
    return sorted(
        path for entry in REQUEST_PATH for path in [root / entry, *(root / entry).rglob("*.py")] if path.is_file()
    )


def imported_modules(path: Path) -> set[str]:
    """Return the top-level names that a file imports, wherever in it the import stands."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found
