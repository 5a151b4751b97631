"""A ranker for tests: score = features @ weights, as an ONNX model written field by field: no test needs `onnx`.

Field numbers are those of onnx.proto3 (ONNX IR version 8, operator set 13).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from shared.features.vector import SCHEMA

_FLOAT = 1


def linear_ranker(weights: Mapping[str, float]) -> bytes:
    """The model; features that are not named weigh nothing."""
    column = np.zeros((len(SCHEMA.names), 1), dtype="<f4")
    for name, weight in weights.items():
        column[SCHEMA.names.index(name), 0] = weight
    tensor = _varint(1, len(SCHEMA.names)) + _varint(1, 1) + _varint(2, _FLOAT) + _bytes(8, b"W")
    node = _bytes(1, b"X") + _bytes(1, b"W") + _bytes(2, b"Y") + _bytes(4, b"MatMul")
    graph = (
        _bytes(1, node)
        + _bytes(2, b"linear")
        + _bytes(5, tensor + _bytes(9, column.tobytes()))
        + _bytes(11, _value(b"X", len(SCHEMA.names)))
        + _bytes(12, _value(b"Y", 1))
    )
    return _varint(1, 8) + _bytes(7, graph) + _bytes(8, _bytes(1, b"") + _varint(2, 13))


def _value(name: bytes, width: int) -> bytes:
    shape = _bytes(1, _bytes(2, b"N")) + _bytes(1, _varint(1, width))
    return _bytes(1, name) + _bytes(2, _bytes(1, _varint(1, _FLOAT) + _bytes(2, shape)))


def _varint(field: int, number: int) -> bytes:
    return _number(field << 3) + _number(number)


def _bytes(field: int, data: bytes) -> bytes:
    return _number(field << 3 | 2) + _number(len(data)) + data


def _number(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
