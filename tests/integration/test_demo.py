"""The demo whole, on a tiny shop: it runs to its end, starts in seconds the next time, and notices a broken ranker."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from local.embedded import EmbeddedServers
from local.serve import local_environment

SIZES = ("--users", "300", "--items", "400", "--events", "20000", "--days", "40", "--seed", "3")
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in {"REDIS_URL", "EVENT_LOG_URL"}}
ENVIRONMENT["COLUMNS"] = "200"


def demo(data: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "local.demo", "--once", "--data", str(data), *arguments]
    return subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, env=ENVIRONMENT
    )


def flatten_scores(ranker: Path) -> None:
    """Multiply what the ranker says by zero."""
    model = onnx.load(str(ranker))
    name = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = ["said" if output == name else output for output in node.output]
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(1, dtype=np.float32), "nothing"))
    model.graph.node.append(helper.make_node("Mul", ["said", "nothing"], [name]))
    onnx.checker.check_model(model)
    ranker.write_bytes(model.SerializeToString())


def publish_anew(data: Path) -> None:
    with EmbeddedServers(data) as servers:
        environment = {**ENVIRONMENT, **local_environment(data, servers)}
        command = [sys.executable, "-m", "batch.run_nightly", "--data", str(data), "--from", "build_release"]
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)


def claims(output: str, sign: str) -> list[str]:
    return [line.strip().removeprefix(sign).strip() for line in output.splitlines() if line.strip().startswith(sign)]


@pytest.mark.spark
@pytest.mark.timeout(900)
def test_the_demo_tells_true_things_of_a_sound_ranker_and_fails_with_a_broken_one(tmp_path: Path) -> None:
    first = demo(tmp_path, *SIZES)
    true, false = claims(first.stdout, "✓"), claims(first.stdout, "✗")
    assert "generating a synthetic shop" in first.stdout
    assert first.returncode == (1 if false else 0), first.stdout
    # So small a shop may miss a bar of the evaluation or know no partners; whatever rests on the path itself must hold.
    about_quality = ("the whole is at least", "partners are bought together")
    assert [claim for claim in false if not claim.startswith(about_quality)] == [], first.stdout
    assert len(true) >= 20

    flatten_scores(tmp_path / "nightly/onnx/ranker.onnx")
    publish_anew(tmp_path)
    second = demo(tmp_path, *SIZES)
    assert "generating a synthetic shop" not in second.stdout, "the folder held the shop already"
    assert second.returncode == 1, second.stdout
    assert "the ranker tells her items apart (1 different scores on the page)" in claims(second.stdout, "✗")


def test_arguments_that_do_not_go_together_are_refused_before_any_work(tmp_path: Path) -> None:
    orders = tmp_path / "orders.csv"
    orders.write_text("InvoiceNo\n")
    ended = demo(tmp_path / "shop", "--data-file", str(orders), "--users", "3")
    assert ended.returncode == 2
    assert "leave --users" in ended.stdout
    missing = demo(tmp_path / "shop", "--data-file", str(tmp_path / "none.csv"))
    assert missing.returncode == 2
    assert "no file" in missing.stdout
    assert not (tmp_path / "shop").exists()
