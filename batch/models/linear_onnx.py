"""Linear terms as nodes of an ONNX graph: the transforms are inside, so that serving hands over the plain matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from shared.ranking.linear_terms import Z_LIMIT, LinearTerms


def linear_nodes(terms: LinearTerms, features: str, score: str) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Nodes and constants that read float32 [None, F] `features` and write float32 [None, 1] `score`.

    Plain terms come first, then those on a logarithmic scale, each kind gathered once; z is computed as
    x * (1 / scale) - mean / scale and cut, as `LinearTerms` does.
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
    scaled = node("Mul", [values, constant("slope", (1 / terms.scale[order]).astype(np.float32))], "scaled")
    shift = constant("shift", (terms.mean[order] / terms.scale[order]).astype(np.float32))
    z = node("Sub", [scaled, shift], "z")
    limits = [constant("least", np.array(-Z_LIMIT, np.float32)), constant("most", np.array(Z_LIMIT, np.float32))]
    cut = node("Clip", [z, *limits], "cut")
    node("MatMul", [cut, constant("weight", terms.weight[order].astype(np.float32)[:, None])], score)
    return nodes, constants
