"""Stage: ALS factors, popularity, co-occurrence and baskets of the spans fit, fit_label and all."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

import numpy as np
from scipy import sparse

from batch.build_interactions import load_summary
from batch.interactions import CART, PURCHASE, REMOVE_FROM_CART, VIEW, Interactions, load_interactions
from batch.models.als import fit_als, interaction_weights, net_weights
from batch.models.bought_together import assign_baskets, basket_matrix
from batch.models.cooccurrence import fit_cooccurrence
from batch.periods import SPANS
from batch.retrieval_span import RetrievalParams, RetrievalSpan, save_span
from shared.cli import command
from shared.events import from_ms

_STRENGTH = {VIEW: 1.0, CART: 2.0, PURCHASE: 3.0}
"""How much meeting a target item means for co-occurrence: flatter than taste, for the next view matters too."""


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Fits retrieval on each span and writes nightly/retrieval/<span>; 2 when the interactions are not there."""
    defaults = RetrievalParams()
    parser = argparse.ArgumentParser(prog="python -m batch.fit_retrieval", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of the shop")
    parser.add_argument("--factors", type=int, default=defaults.factors, help="ALS factors (default %(default)s)")
    parser.add_argument("--iterations", type=int, default=defaults.iterations, help="ALS iterations (%(default)s)")
    parser.add_argument("--seed", type=int, default=defaults.seed, help="seed of ALS and of ties (%(default)s)")
    arguments = parser.parse_args(argv)
    params = RetrievalParams(factors=arguments.factors, iterations=arguments.iterations, seed=arguments.seed)
    fit_retrieval(arguments.data, params)
    return 0


def fit_retrieval(data: Path, params: RetrievalParams | None = None) -> None:
    """Fits every span of the interactions below `data` and saves it; raises ConfigurationError without them."""
    params = params or RetrievalParams()
    summary = load_summary(data)
    interactions = load_interactions(data)
    for span in SPANS:
        end_at = summary.periods.span_end_at(span)
        known = interactions.known_before(end_at)
        fitted, seconds = fit_span(known, summary.users, summary.items, end_at, params)
        save_span(data, span, fitted, seconds)
        total = sum(seconds.values())
        steps = ", ".join(f"{name} {value:.1f} s" for name, value in seconds.items())
        print(
            f"  {span}: {len(known):,} interactions before {from_ms(end_at):%Y-%m-%d %H:%M} UTC "
            f"({len(known) / max(total, 1e-9):,.0f}/s; {steps})"
        )


def fit_span(
    known: Interactions, users: int, items: int, end_at: int, params: RetrievalParams
) -> tuple[RetrievalSpan, dict[str, float]]:
    """Retrieval of what is known before `end_at` (epoch ms), and how many seconds each step took."""
    clock = [perf_counter()]
    weight = interaction_weights(known.event_type, known.at, end_at, half_life_days=params.half_life_days)
    factors = fit_als(
        known.user,
        known.item,
        weight,
        users,
        items,
        factors=params.factors,
        iterations=params.iterations,
        regularization=params.regularization,
        alpha=params.alpha,
        seed=params.seed,
    )
    clock.append(perf_counter())
    recent = interaction_weights(known.event_type, known.at, end_at, half_life_days=params.popularity_half_life_days)
    popularity = np.maximum(np.bincount(known.item, recent, items), 0).astype(np.float32)
    weights = sparse.csr_array(net_weights(known.user, known.item, weight, users, items))
    clock.append(perf_counter())
    met = known.where(known.event_type != REMOVE_FROM_CART)
    strength = np.array([_STRENGTH.get(code, 0.0) for code in range(4)], dtype=np.float32)[met.event_type]
    cooccurrence = fit_cooccurrence(met.user, met.item, met.at, strength, item_count=items, params=params.cooccurrence)
    clock.append(perf_counter())
    bought = known.where(known.event_type == PURCHASE)
    basket, basket_count = assign_baskets(bought.user, bought.session, bought.at)
    baskets = basket_matrix(basket, bought.item, basket_count, items)
    clock.append(perf_counter())
    steps = ("als", "popularity", "cooccurrence", "baskets")
    seconds = {name: after - before for name, before, after in zip(steps, clock[:-1], clock[1:], strict=True)}
    return RetrievalSpan(end_at, params, factors, popularity, weights, cooccurrence, baskets), seconds


if __name__ == "__main__":
    sys.exit(main())
