"""Features of the request alone, computed from what the caller passes, through the same declarations.

Feast keeps a transformation as source text and runs it on its own, so each of the two functions below brings what it
needs by an import of its own.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from zoneinfo import ZoneInfo

import numpy as np
from feast import Field
from feast.types import Float32, Int64, String
from numpy.typing import NDArray

from feature_jobs.feast_catalog.values import values_of_request
from shared.features.declaration import Entity
from shared.features.definitions import FEATURES, Retrieval
from shared.features.views import RequestView, RetrievalBlock

Columns = Mapping[str, Sequence[Any]]
_VISITED: Final = ("covisitation_last", "covisitation_sum")
_TEXT: Final = "text_score"


def retrieval_features(inputs):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN201, D103 - Feast stores and runs this text alone
    from feature_jobs.feast_catalog.on_demand import of_retrieval  # noqa: PLC0415 - see above

    return of_retrieval(inputs)


def request_features(inputs):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN201, D103 - Feast stores and runs this text alone
    from feature_jobs.feast_catalog.on_demand import of_request  # noqa: PLC0415 - see above

    return of_request(inputs)


def source_text(function: Callable[..., Any]) -> str:
    """The source that Feast keeps of a transformation."""
    return textwrap.dedent(inspect.getsource(function))


def retrieval_inputs() -> list[Field]:
    """What a `RetrievalBlock` is made of, a column each: ranks and scores by source, co-visitation, and text."""
    ranks = [Field(name=name, dtype=Int64, description="rank from 1, 0: not carried") for name in _names("rank")]
    scores = [Field(name=name, dtype=Float32, description="share of the list's best") for name in _names("score")]
    visited = [
        Field(name=name, dtype=Float32, description="of the last click; of the last clicks") for name in _VISITED
    ]
    text = Field(name=_TEXT, dtype=Float32, description="fit with the words of a search, as a share of the best fit")
    return [*ranks, *scores, *visited, text]


def of_retrieval(inputs: Columns) -> dict[str, list[np.float32]]:
    """The retrieval features of n candidates by name."""
    block = RetrievalBlock(
        _block(inputs, _names("rank"), np.int16),
        _block(inputs, _names("score"), np.float32),
        _block(inputs, _VISITED, np.float32),
        np.array(inputs[_TEXT], dtype=np.float32),
    )
    features = tuple(one for one in FEATURES if one.entity is Entity.RETRIEVAL)
    matrix = values_of_request(features, len(block.ranks), retrieval=block)
    return {one.name: list(matrix[:, column]) for column, one in enumerate(features)}


def request_inputs() -> list[Field]:
    """What a `RequestView` is made of: `as_of` in epoch ms, the shop's time zone, and what else the request says."""
    return [
        Field(name=name, dtype=Int64 if name == "as_of" else String, description="epoch ms" if name == "as_of" else "")
        for name in _request_parameters()
    ]


def of_request(inputs: Columns) -> dict[str, list[np.float32]]:
    """The request features of n requests by name."""
    features = tuple(one for one in FEATURES if one.entity is Entity.REQUEST)
    names = _request_parameters()
    said = list(zip(*(inputs[name] for name in names), strict=True))
    # The candidates of a page share its request: each distinct one is computed once.
    distinct = {
        one: values_of_request(features, 1, request=_request_view(dict(zip(names, one, strict=True))))[0]
        for one in dict.fromkeys(said)
    }
    return {one.name: [distinct[row][column] for row in said] for column, one in enumerate(features)}


def _request_view(said: dict[str, Any]) -> RequestView:
    time_zone = ZoneInfo(said.pop("time_zone"))
    as_of = int(said.pop("as_of"))
    return RequestView(as_of, time_zone, **{name: value or None for name, value in said.items()})


def _request_parameters() -> list[str]:
    return list(inspect.signature(RequestView).parameters)


def _names(kind: str) -> list[str]:
    return [f"{source}_{kind}" for source in Retrieval]


def _block(inputs: Columns, names: Sequence[str], dtype: type[np.generic]) -> NDArray[Any]:
    return np.array([inputs[name] for name in names], dtype=dtype).T
