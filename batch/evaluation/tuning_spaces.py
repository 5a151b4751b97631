"""What of each source is searched, and within which bounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from batch.evaluation.params import Parameters
from shared.features.definitions import Retrieval


@dataclass(frozen=True, slots=True)
class Tunable:
    """A parameter by its dotted name, and its bounds; `log` searches by ratio. Whole numbers stay whole."""

    name: str
    low: float
    high: float
    log: bool = False


def _exponents(model: str, *names: str, low: float = -1.0, high: float = 0.2) -> tuple[Tunable, ...]:
    return tuple(Tunable(f"retrieval.{model}.{name}", low, high) for name in names)


def _steps(model: str) -> tuple[Tunable, ...]:
    return (
        Tunable(f"retrieval.{model}.lag_decay", 0.4, 1.0),
        *_exponents(model, "user_length", "source_popularity", "target_popularity"),
        Tunable(f"retrieval.{model}.window", 5, 30),
        Tunable(f"sources.{model}_decay", 0.4, 1.0),
    )


_FILTER: Final = (
    Tunable("retrieval.als.factors", 64, 512),
    *_exponents("als.spectral", "user_length", "popularity", low=-0.8),
    Tunable("retrieval.als.spectral.strength", 0.0, 0.8),
    Tunable("retrieval.als.spectral.target_popularity", -0.2, 0.5),
    Tunable("retrieval.als.spectral.length_power", -2.0, 0.0),
    Tunable("retrieval.als.spectral.weight_power", 0.0, 1.0),
    Tunable("sources.als_decay", 0.4, 1.0),
)
_ALS: Final = (
    Tunable("retrieval.als.factors", 64, 256),
    Tunable("retrieval.als.regularization", 0.1, 300.0, log=True),
    Tunable("retrieval.als.alpha", 0.3, 30.0, log=True),
    Tunable("retrieval.als.frequency_scaling", 0.0, 1.0),
    Tunable("retrieval.als.half_life_days", 5.0, 2000.0, log=True),
    Tunable("sources.als_decay", 0.4, 1.0),
)
_OTHERS: Final[Mapping[Retrieval, tuple[Tunable, ...]]] = {
    Retrieval.COOCCURRENCE: (
        Tunable("retrieval.cooccurrence.backward", 0.0, 1.0),
        *_steps("cooccurrence"),
    ),
    Retrieval.TRANSITIONS: _steps("transitions"),
    Retrieval.ATTRIBUTES: (
        Tunable("retrieval.attributes.brand", 0.0, 3.0),
        Tunable("retrieval.attributes.price", 0.0, 2.0),
        Tunable("retrieval.attributes.title", 0.0, 3.0),
        Tunable("retrieval.attributes.idf_power", 0.5, 3.0),
        Tunable("retrieval.attributes.popularity", 0.0, 0.8),
        Tunable("retrieval.attributes.onward", 0.0, 4.0),
        Tunable("sources.attributes_decay", 0.4, 1.0),
    ),
    Retrieval.REPEAT: (
        Tunable("sources.repeat.long_days", 20.0, 600.0, log=True),
        Tunable("sources.repeat.short_days", 1.0, 60.0, log=True),
        Tunable("sources.repeat.short_share", 0.0, 1.0),
        Tunable("sources.repeat.step_decay", 0.5, 1.0),
        Tunable("sources.repeat.frequency", 0.0, 1.0),
        Tunable("sources.repeat.at_hand_share", 0.0, 1.0),
        Tunable("sources.repeat.wait", 0.0, 1.0),
        Tunable("sources.repeat.demand", 0.0, 1.0),
    ),
    Retrieval.POPULAR: (
        Tunable("sources.popular.taste", 0.0, 2.0),
        Tunable("sources.popular.taste_decay", 0.7, 1.0),
        Tunable("sources.popular.momentum", 0.0, 1.0),
    ),
}


def spaces(parameters: Parameters) -> dict[Retrieval, tuple[Tunable, ...]]:
    """By source, in the order in which they are tuned; of factors what the model reads that makes them."""
    filtered = parameters.retrieval.als.factor_model == "spectral"
    return {Retrieval.ALS: _FILTER if filtered else _ALS, **_OTHERS}
