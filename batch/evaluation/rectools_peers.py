"""RecTools' models as peers, in an environment of their own: RecTools asks for other packages than ours."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from batch.evaluation.peer_methods import Block, Params, PeerData, PeerMethod
from batch.evaluation.peer_queries import STRENGTHS
from shared.errors import ConfigurationError

SCRIPT: Final = Path(__file__).with_name("rectools_scores.py")
_STRENGTH: Final = ("bought", "all", "graded")
_DEPTH: Final = 300


def rectools_methods(python: Path, folder: Path) -> dict[str, PeerMethod]:
    """Methods whose models an interpreter that has RecTools fits; `folder` holds what goes to and fro.

    Raises ConfigurationError when there is no such interpreter.
    """
    if not python.exists():
        raise ConfigurationError(f"there is no interpreter {python}; make an environment with requirements-peers.txt")
    spaces: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
        "EASEModel": {"regularization": (500.0, 100.0, 2000.0), "strength": _STRENGTH},
        "PureSVDModel": {"factors": (64, 32, 128), "strength": _STRENGTH},
    }

    return {
        f"{model.removesuffix('Model')} (RecTools)": PeerMethod(RecTools(python, folder, model).fit, space)
        for model, space in spaces.items()
    }


@dataclass(frozen=True, slots=True)
class RecTools:
    """One model of RecTools, fitted by another interpreter; RecTools ranks by users as they were fitted."""

    python: Path
    folder: Path
    model: str

    def fit(self, data: PeerData, params: Params, seed: int) -> Block:
        """Scores of each user's best products; the others have less."""
        user, item, score = self._fitted(data, params, seed)
        edges: NDArray[np.int64] = np.searchsorted(user, np.arange(data.users + 1))
        lowest = float(score.min(initial=0.0)) - 1

        def block(chosen: slice) -> NDArray[np.float32]:
            asking = data.queries.user[chosen]
            scores = np.full((len(asking), data.items), lowest, dtype=np.float32)
            for row, one in enumerate(asking.tolist()):
                if one < data.users:
                    rows = slice(int(edges[one]), int(edges[one + 1]))
                    scores[row, item[rows]] = score[rows]
            return scores

        return block

    def _fitted(
        self, data: PeerData, params: Params, seed: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        folder, model, python = self.folder, self.model, self.python
        folder.mkdir(parents=True, exist_ok=True)
        asked, answered = folder / "asked.npz", folder / "answered.npz"
        answered.unlink(missing_ok=True)
        matrix = data.matrix(STRENGTHS[params["strength"]]).tocoo()
        users = np.intersect1d(data.queries.user, matrix.row)
        arguments = {name: value for name, value in params.items() if name != "strength"}
        if model == "PureSVDModel":
            arguments["random_state"] = seed
        np.savez(
            asked, model=model, names=np.array(list(arguments)), values=np.array(list(arguments.values()), dtype=float),
            user=matrix.row, item=matrix.col, weight=matrix.data, asked=users, depth=min(_DEPTH, data.items),
        )  # fmt: skip
        finished = subprocess.run(
            [str(python), str(SCRIPT), str(asked), str(answered)], check=False, capture_output=True, text=True
        )
        if finished.returncode or not answered.exists():
            raise ConfigurationError(f"{python} {SCRIPT.name} failed: {finished.stderr.strip()[-500:]}")
        with np.load(answered) as found:
            return found["user"], found["item"], found["score"]
