"""Stage: what retrieval learns from the spans fit, fit_label and all: factors, item-to-item matrices, baskets."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from batch.build_interactions import load_summary
from batch.catalog_snapshot import load_item_ids, products_at
from batch.evaluation.params import load_parameters
from batch.interactions import CART, PURCHASE, REMOVE_FROM_CART, VIEW, Interactions, load_interactions
from batch.models.als import fit_als, interaction_weights, net_weights
from batch.models.attributes import AttributeParams, attribute_matrix, fit_attributes, lend_successors
from batch.models.bought_together import assign_baskets, basket_matrix
from batch.models.cooccurrence import CooccurrenceParams, fit_cooccurrence
from batch.periods import SPANS
from batch.retrieval_span import FITTED_KINDS, PARAMS_FILE, RetrievalParams, RetrievalSpan, save_span
from shared.adapters.folder_blob import FolderBlobStore
from shared.candidates.als import ItemFactors
from shared.candidates.params import DEFAULT, SourceParams
from shared.candidates.query import ListKind
from shared.catalog import Product
from shared.cli import command
from shared.events import from_ms
from shared.features.definitions import Retrieval

_STRENGTH = {VIEW: 1.0, CART: 2.0, PURCHASE: 3.0}
"""How much meeting a target item means for co-occurrence: flatter than taste, for the next view matters too."""


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Fits retrieval on each span and writes nightly/retrieval/<span>; 2 when the interactions are not there."""
    parser = argparse.ArgumentParser(prog="python -m batch.fit_retrieval", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of the shop")
    parser.add_argument(
        "--params", type=Path, metavar="FILE", help=f"JSON of parameters (default: the folder's {PARAMS_FILE}, if any)"
    )
    parser.add_argument("--factors", type=int, help="ALS factors, instead of the parameters'")
    parser.add_argument("--iterations", type=int, help="ALS iterations, instead of the parameters'")
    parser.add_argument("--seed", type=int, help="seed of ALS and of ties, instead of the parameters'")
    arguments = parser.parse_args(argv)
    of_shop = arguments.data / PARAMS_FILE
    parameters = load_parameters(arguments.params or (of_shop if of_shop.exists() else None))
    params = parameters.retrieval
    of_als = {name: getattr(arguments, name) for name in ("factors", "iterations")}
    als = replace(params.als, **{name: value for name, value in of_als.items() if value is not None})
    seed = params.seed if arguments.seed is None else arguments.seed
    fit_retrieval(arguments.data, replace(params, als=als, seed=seed), parameters.sources)
    return 0


def fit_retrieval(data: Path, params: RetrievalParams | None = None, sources: SourceParams = DEFAULT) -> None:
    """Fits every span of the interactions below `data` and saves it; raises ConfigurationError without them.

    `sources` are the request-time parameters that the release will serve with; they stand beside what is fitted.
    """
    params = params or RetrievalParams()
    summary = load_summary(data)
    interactions = load_interactions(data)
    item_ids = load_item_ids(data)
    for span in SPANS:
        end_at = summary.periods.span_end_at(span)
        known = interactions.known_before(end_at)
        products = products_at(FolderBlobStore(data), item_ids, end_at - 1)
        fitted, seconds = fit_span(known, products, summary.users, summary.items, end_at=end_at, params=params)
        save_span(data, span, fitted, seconds, sources)
        total = sum(seconds.values())
        steps = ", ".join(f"{name} {value:.1f} s" for name, value in seconds.items())
        print(
            f"  {span}: {len(known):,} interactions before {from_ms(end_at):%Y-%m-%d %H:%M} UTC "
            f"({len(known) / max(total, 1e-9):,.0f}/s; {steps})"
        )


def fit_span(
    known: Interactions,
    products: Sequence[Product] | None,
    users: int,
    items: int,
    *,
    end_at: int,
    params: RetrievalParams,
    only: Collection[Retrieval] | None = None,
) -> tuple[RetrievalSpan, dict[str, float]]:
    """Retrieval of what is known before `end_at` (epoch ms), and how many seconds each step took.

    `products` are what the catalogue said of each item by then, in index order; None: nothing. With `only`, what no
    source in it reads is left out: factors of zeros, empty matrices, no baskets.
    """
    timed = _Timed()
    wanted = set(Retrieval) if only is None else set(only)
    with timed("weights"):
        weight = interaction_weights(known.event_type, known.at, end_at, half_life_days=params.als.half_life_days)
        weights = sparse.csr_array(net_weights(known.user, known.item, weight, users, items))
        days = params.popularity_half_life_days
        recent = interaction_weights(known.event_type, known.at, end_at, half_life_days=days)
        popularity = np.maximum(np.bincount(known.item, recent, items), 0).astype(np.float32)
    als = params.als
    factors = ItemFactors.of(np.zeros((items, als.factors), np.float32), als.regularization, als.alpha)
    if Retrieval.ALS in wanted:
        with timed("als"):
            factors = fit_als(weights, als, seed=params.seed)
    matrices = {kind: sparse.csr_array((items, items), dtype=np.float32) for kind in FITTED_KINDS}
    lends = Retrieval.ATTRIBUTES in wanted and params.attributes.onward > 0
    for kind in FITTED_KINDS:
        if Retrieval(kind.value) in wanted or (kind is ListKind.TRANSITIONS and lends):
            with timed(kind.value):
                if kind is ListKind.ATTRIBUTES:
                    after = matrices[ListKind.TRANSITIONS]
                    matrices[kind] = _fit_attributes(products, popularity, after, params.attributes, params.seed)
                else:
                    steps = params.transitions if kind is ListKind.TRANSITIONS else params.cooccurrence
                    matrices[kind] = _fit_steps(known, items, steps, params.seed)
    baskets = sparse.csr_array((0, items), dtype=np.int32)
    if only is None:
        with timed("baskets"):
            bought = known.where(known.event_type == PURCHASE)
            basket, basket_count = assign_baskets(bought.user, bought.session, bought.at)
            baskets = basket_matrix(basket, bought.item, basket_count, items)
    return RetrievalSpan(end_at, params, factors, popularity, weights, matrices, baskets), timed.seconds


def _fit_attributes(
    products: Sequence[Product] | None,
    popularity: NDArray[np.float32],
    transitions: sparse.csr_array,
    params: AttributeParams,
    seed: int,
) -> sparse.csr_array:
    if products is None:
        return sparse.csr_array((len(popularity), len(popularity)), dtype=np.float32)
    alike = fit_attributes(attribute_matrix(products, params), popularity, params, seed=seed)
    return lend_successors(alike, transitions, params, seed=seed)


def _fit_steps(known: Interactions, items: int, params: CooccurrenceParams, seed: int) -> sparse.csr_array:
    met = known.where(known.event_type != REMOVE_FROM_CART)
    strength = np.array([_STRENGTH.get(code, 0.0) for code in range(4)], dtype=np.float32)[met.event_type]
    return fit_cooccurrence(met.user, met.item, met.at, strength, item_count=items, params=params, seed=seed)


class _Timed:
    """Seconds of named steps."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        started = perf_counter()
        yield
        self.seconds[step] = perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
