"""Linear terms as nodes of an ONNX graph: the transforms are inside, so that serving hands over the plain matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from shared.features.vector import SMALLEST, Matrix
from shared.ranking.linear_terms import Z_LIMIT, LinearTerms


def linear_nodes(terms: LinearTerms, features: str, score: str) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Nodes and constants that read float32 [None, F] `features` and write float32 [None, 1] `score`.

    Plain terms come first, then those on a logarithmic scale, each kind gathered once. All is float32: that is close
    enough because means and scales are float32 numbers, so that a value near its mean loses nothing when they differ.
    """
    plain, logged = np.flatnonzero(np.isnan(terms.offset)), np.flatnonzero(~np.isnan(terms.offset))
    order = np.concatenate([plain, logged])
    constants: list[onnx.TensorProto] = []
    nodes: list[onnx.NodeProto] = []

    def constant(name: str, values: NDArray[np.generic]) -> str:
        constants.append(numpy_helper.from_array(values, name))
        return name

    def node(operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def gathered(name: str, chosen: NDArray[np.int64]) -> str:
        """float32[n, k] of the chosen terms, NaN filled."""
        values = node(
            "Gather",
            [features, constant(f"{name}_columns", terms.feature[chosen].astype(np.int64))],
            f"{name}_raw",
            axis=1,
        )
        unknown = node("IsNaN", [values], f"{name}_unknown")
        return node("Where", [unknown, constant(f"{name}_fill", terms.fill[chosen]), values], f"{name}_known")

    blocks = []
    if len(plain):
        blocks.append(gathered("plain", plain))
    if len(logged):
        above = node("Max", [gathered("logged", logged), constant("zero", np.zeros(1, np.float32))], "logged_above")
        shifted = node("Add", [above, constant("offset", terms.offset[logged])], "logged_shifted")
        blocks.append(node("Log", [shifted], "logged_log"))
    values = node("Concat", blocks, "values", axis=1) if len(blocks) > 1 else blocks[0]
    centred = node("Sub", [values, constant("mean", terms.mean[order].astype(np.float32))], "centred")
    z = node("Div", [centred, constant("scale", terms.scale[order].astype(np.float32))], "z")
    limits = [constant("least", np.array(-Z_LIMIT, np.float32)), constant("most", np.array(Z_LIMIT, np.float32))]
    cut = node("Clip", [z, *limits], "cut")
    node("MatMul", [cut, constant("weight", terms.weight[order].astype(np.float32)[:, None])], score)
    return nodes, constants


def edge_rows(terms: LinearTerms, rng: np.random.Generator, rows: Matrix) -> Matrix:
    """A copy of float32 rows [n, F]; half the values that the terms read lie where a transform turns or ends."""
    made = rows.copy()
    for feature in np.unique(terms.feature).tolist():
        read = terms.feature == feature
        cuts = (terms.mean[read] + Z_LIMIT * terms.scale[read], terms.mean[read] - Z_LIMIT * terms.scale[read])
        pool = [0.0, -1.0, 1.0, SMALLEST, -SMALLEST, 1e30, -1e30, np.inf, -np.inf, np.nan, 1 / 400, 1 / 200]
        values = np.concatenate([pool, terms.mean[read], *cuts]).astype(np.float32)
        chosen = rng.random(len(made)) < 0.5
        made[chosen, feature] = rng.choice(values, size=int(chosen.sum()))
    return made
