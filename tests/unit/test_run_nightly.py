"""The night runs dvc.yaml's stages in order, and says how to go on after one that failed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from batch import run_nightly
from batch.night_lock import one_night
from batch.run_nightly import PIPELINE, choose_stages, main, read_stages
from shared.errors import ConfigurationError

ORDER = [
    "compact_lake", "backfill_state", "build_interactions", "fit_retrieval", "build_neighbours", "build_training_set",
    "train_ranker", "export_ranker", "evaluate_release", "build_candidates", "build_release", "publish_release",
    "settle_erasures",
]  # fmt: skip

STAGE = """
from pathlib import Path

def main(argv):
    print("{name}", *argv)
    if Path(argv[1], "break_{name}").exists():
        {broken}
    return 0
"""


@pytest.fixture
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Three stages of a package of their own: the second can end with a code, the third can raise."""
    package = tmp_path / "night_of_test"
    package.mkdir()
    (package / "__init__.py").touch()
    for name, broken in (("first", "pass"), ("second", "return 2"), ("third", "raise RuntimeError('a defect')")):
        (package / f"{name}.py").write_text(STAGE.format(name=name, broken=broken))
    (tmp_path / "params.yaml").write_text("data: somewhere\nmaster: local[*]\nredis: ''\n")
    stages = {name: {"cmd": f"python -m night_of_test.{name} --data '${{data}}'"} for name in ("first", "second")}
    stages["third"] = {"cmd": "python -m night_of_test.third --data ${data} --master '${master}' --redis '${redis}'"}
    path = tmp_path / "dvc.yaml"
    path.write_text(yaml.safe_dump({"vars": ["params.yaml"], "stages": stages}, sort_keys=False))
    monkeypatch.setattr(run_nightly, "PIPELINE", path)
    monkeypatch.setenv("REDIS_URL", f"unix://{tmp_path}/none.sock")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield path
    for name in [name for name in sys.modules if name.startswith("night_of_test")]:
        del sys.modules[name]


def ran(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(("first", "second", "third"))]


def test_every_stage_runs_in_order_with_its_arguments(
    pipeline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "a shop"
    data.mkdir()
    assert main(["--data", str(data), "--master", "local[1]"]) == 0
    said = capsys.readouterr().out
    assert ran(said) == [
        f"first --data {data}",
        f"second --data {data}",
        f"third --data {data} --master local[1] --redis unix://{tmp_path}/none.sock",
    ]
    assert "nothing sealed" in said, "no Redis answers: that is said and is no failure"
    assert said.count(" s  ok") == 3


def test_a_second_night_on_the_same_folder_is_refused_and_one_on_another_is_not(
    pipeline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shop, other = tmp_path / "shop", tmp_path / "other"
    shop.mkdir()
    other.mkdir()
    with one_night(shop):
        assert main(["--data", str(shop)]) == 2
        assert "runs on" in capsys.readouterr().err
        assert main(["--data", str(other)]) == 0
    assert main(["--data", str(shop)]) == 0
    assert main(["--data", str(tmp_path / "nowhere")]) == 2


def test_a_failing_stage_ends_the_night_and_tells_how_to_go_on(
    pipeline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "break_second").touch()
    assert main(["--data", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert [line.split()[0] for line in ran(said.out)] == ["first", "second"]
    assert "stage second failed: ended with exit code 2" in said.err
    assert f"python -m batch.run_nightly --data {tmp_path} --from second" in said.err
    (tmp_path / "break_second").unlink()
    (tmp_path / "break_third").touch()
    assert main(["--data", str(tmp_path), "--from", "second"]) == 1
    said = capsys.readouterr()
    assert [line.split()[0] for line in ran(said.out)] == ["second", "third"]
    assert "stage third failed: RuntimeError: a defect" in said.err
    assert "Traceback" in said.err, "a defect shows where it is"


def test_one_stage_alone_and_wrong_names(pipeline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", str(tmp_path), "--only", "second"]) == 0
    said = capsys.readouterr().out
    assert ran(said) == [f"second --data {tmp_path}"]
    assert "sealed" not in said
    assert main(["--data", str(tmp_path), "--only", "fourth"]) == 2
    assert main(["--data", str(tmp_path), "--only", "first", "--from", "first"]) == 2


def test_ctrl_c_in_a_stage_is_no_defect(
    pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "night_of_test/first.py").write_text("def main(argv):\n    raise KeyboardInterrupt\n")
    assert main(["--data", str(tmp_path)]) == 130
    assert "--from first" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["python night.py", "bash -c true", "python -m", "python -m m --x '${nobody}'"])
def test_a_command_that_is_no_stage_is_refused(tmp_path: Path, command: str) -> None:
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"one": {"cmd": command}}}))
    with pytest.raises(ConfigurationError, match="stage one"):
        read_stages(tmp_path / "dvc.yaml", {})


def test_the_projects_stages_are_whole_and_in_an_order_their_files_allow() -> None:
    stages = read_stages(PIPELINE, {"data": "DIR"})
    assert [stage.name for stage in stages] == ORDER
    assert choose_stages(stages, "build_release", None) == stages[-3:]
    root = PIPELINE.parent
    document = yaml.safe_load(PIPELINE.read_text())["stages"]
    made: set[str] = set()
    for stage in stages:
        module = root / f"{stage.module.replace('.', '/')}.py"
        assert "\ndef main(argv: Sequence[str] | None = None) -> int:" in module.read_text(), module
        assert stage.argv[:2] == ("--data", "DIR")
        for needed in document[stage.name].get("deps", []):
            assert needed in made if needed.startswith("${data}") else (root / needed).exists(), (stage.name, needed)
        made |= {name for out in document[stage.name].get("outs", []) for name in out}
        assert all(out[name]["cache"] is False for out in document[stage.name].get("outs", []) for name in out)
    assert document["publish_release"]["always_changed"]


def test_dvcs_cache_keeps_nothing_of_what_stages_make() -> None:
    """Whoever is erased must not come back from a cache, nor lie there."""
    stages = yaml.safe_load(PIPELINE.read_text())["stages"]
    outs = [out for stage in stages.values() for kind in ("outs", "metrics", "plots") for out in stage.get(kind, [])]
    assert len(outs) >= 10
    for out in outs:
        assert isinstance(out, dict), f"{out} would be cached"
        assert [options["cache"] for options in out.values()] == [False], out
