"""What retrieval learnt from one span of the data, as arrays on disk that any number of processes map at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from batch.models.als import AlsParams
from batch.models.attributes import AttributeParams
from batch.models.bought_together import BoughtTogetherParams
from batch.models.cooccurrence import CooccurrenceParams, TransitionParams
from batch.models.similar_items import SimilarParams
from batch.periods import Span
from shared.adapters.stage_folder import replace_folder
from shared.candidates.als import ItemFactors
from shared.candidates.params import DEFAULT, SourceParams
from shared.candidates.query import ListKind
from shared.errors import ConfigurationError

RETRIEVAL_FOLDER: Final = "nightly/retrieval"
PARAMS_FILE: Final = "params.json"
"""In a shop's folder: parameters that were tuned for it, in the form that batch.evaluate_model writes."""

FITTED_KINDS: Final = (ListKind.COOCCURRENCE, ListKind.TRANSITIONS, ListKind.ATTRIBUTES)
"""Kinds whose lists are the heads of a fitted matrix's rows; the others are made of factors and baskets."""


@dataclass(frozen=True, slots=True)
class RetrievalParams:
    """Hyper-parameters of retrieval by model, and of the lists cut from it: `list_size` is the longest list."""

    als: AlsParams = field(default_factory=AlsParams)
    cooccurrence: CooccurrenceParams = field(default_factory=CooccurrenceParams)
    transitions: TransitionParams = field(default_factory=TransitionParams)
    attributes: AttributeParams = field(default_factory=AttributeParams)
    similar: SimilarParams = field(default_factory=SimilarParams)
    bought_together: BoughtTogetherParams = field(default_factory=BoughtTogetherParams)
    popularity_half_life_days: float = 14.0
    list_size: int = 50
    seed: int = 0


@dataclass(frozen=True, slots=True)
class RetrievalSpan:
    """Retrieval fitted on what was enqueued before `end_at` (epoch ms).

    weights: net interaction weights, float32 [users, items]; popularity: decayed weight of each item, float32 [items];
    matrices: of each of `FITTED_KINDS` float32 [items, items], row by source; baskets: int32 ones [baskets, items].
    """

    end_at: int
    params: RetrievalParams
    items: ItemFactors
    popularity: NDArray[np.float32]
    weights: sparse.csr_array
    matrices: Mapping[ListKind, sparse.csr_array]
    baskets: sparse.csr_array


def span_folder(data: Path, span: Span) -> Path:
    """Where the retrieval of a span lies in a shop's folder."""
    return data / RETRIEVAL_FOLDER / span


def save_span(
    data: Path, span: Span, fitted: RetrievalSpan, seconds: dict[str, float], sources: SourceParams = DEFAULT
) -> None:
    """Writes the span's folder whole or not at all; `seconds` (each step's duration) go to a file of their own."""
    with replace_folder(span_folder(data, span)) as folder:
        np.save(folder / "item_factors.npy", fitted.items.factors)
        np.save(folder / "gram.npy", fitted.items.gram)
        np.save(folder / "popularity.npy", fitted.popularity)
        matrices = _by_name(fitted)
        for name, matrix in matrices.items():
            np.save(folder / f"{name}_data.npy", matrix.data)
            for part in ("indices", "indptr"):
                np.save(folder / f"{name}_{part}.npy", getattr(matrix, part))
        document = {
            "end_at": fitted.end_at,
            **fitted.items.fold_in_params(),
            "params": asdict(fitted.params),
            "sources": asdict(sources),
            "shapes": {name: list(matrix.shape) for name, matrix in matrices.items()},
        }
        _write_json(folder / "params.json", document)
        _write_json(folder / "seconds.json", {name: round(value, 3) for name, value in seconds.items()})


def load_span(data: Path, span: Span) -> RetrievalSpan:
    """The retrieval of a span, its arrays mapped read-only; raises ConfigurationError when it was not fitted yet."""
    folder = span_folder(data, span)
    try:
        document = msgspec.json.decode((folder / "params.json").read_bytes())
    except FileNotFoundError as error:
        raise ConfigurationError(
            f"{folder} is not there; run python -m batch.fit_retrieval --data {data} first."
        ) from error
    shapes = document["shapes"]
    return RetrievalSpan(
        document["end_at"],
        msgspec.convert(document["params"], RetrievalParams),
        ItemFactors.from_params(
            _mapped(folder, "item_factors", np.float32), document, _mapped(folder, "gram", np.float64)
        ),
        popularity=_mapped(folder, "popularity", np.float32),
        weights=_mapped_matrix(folder, "weights", shapes["weights"], np.float32),
        matrices={kind: _mapped_matrix(folder, kind.value, shapes[kind.value], np.float32) for kind in FITTED_KINDS},
        baskets=_mapped_matrix(folder, "baskets", shapes["baskets"], np.int32),
    )


def _by_name(fitted: RetrievalSpan) -> dict[str, sparse.csr_array]:
    of_kinds = {kind.value: matrix for kind, matrix in fitted.matrices.items()}
    return {"weights": fitted.weights, **of_kinds, "baskets": fitted.baskets}


def _mapped_matrix[T: (np.float32, np.int32)](
    folder: Path, name: str, shape: list[int], kind: type[T]
) -> sparse.csr_array:
    # Indices are as wide as scipy made them: 64 bits beyond 2^31 entries.
    indices, indptr = (np.load(folder / f"{name}_{part}.npy", mmap_mode="r") for part in ("indices", "indptr"))
    return sparse.csr_array((_mapped(folder, f"{name}_data", kind), indices, indptr), shape=(shape[0], shape[1]))


def _mapped[T: np.generic](folder: Path, name: str, kind: type[T]) -> NDArray[T]:
    found = np.load(folder / f"{name}.npy", mmap_mode="r")
    if found.dtype != kind:
        raise ConfigurationError(f"{folder / name}.npy holds {found.dtype}; run python -m batch.fit_retrieval again.")
    return np.asarray(found)


def _write_json(path: Path, document: dict[str, object] | dict[str, float]) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=1))
