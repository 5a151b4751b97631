"""Which of a user's pairs become labels where the pairs have no times."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from batch.evaluation.phases import Ages, Numbers, run_starts
from batch.models.spectral import SpectralParams, fit_spectral

HELD_OUT_SHARE: Final = 0.2
"""Of each user's training pairs the share that becomes labels."""
_LIKENESS: Final = SpectralParams(user_length=-0.5, popularity=-0.5, strength=0.0, iterations=4)
_FACTORS: Final = 64


def hold_out(pairs: Numbers, cohesion: float, generator: np.random.Generator) -> NDArray[np.bool_]:
    """bool[k]: the pairs to hold out, a fifth of each user's, rounded.

    Args:
        pairs: int32[k, 2] of user and item, ordered by user, each pair once.
        cohesion: how much the held-out items of a user hang together, as what she does in one time does, and differ
            from the others. 0: all pairs are as likely.
        generator: of the draws.

    Of two items drawn from a user's, one stands for her later and one for her earlier time: the chance of her others to
    be held out grows with exp(cohesion * (cosine to the later - cosine to the earlier)), of item factors by the
    low-pass filter of the pairs.
    """
    starts = run_starts(pairs[:, 0])
    lengths = np.diff(starts)
    # An exponential clock each; those that ring first are drawn in proportion to their rates.
    rings = np.log(generator.exponential(size=len(pairs)))
    if cohesion and len(pairs):
        rings -= cohesion * _leaning(pairs, starts, generator)
    place = np.empty(len(pairs), np.int64)
    place[np.lexsort((rings, pairs[:, 0]))] = np.arange(len(pairs)) - np.repeat(starts[:-1], lengths)
    return np.asarray(place < np.floor(np.repeat(lengths, lengths) * HELD_OUT_SHARE + 0.5))


def _leaning(pairs: Numbers, starts: Ages, generator: np.random.Generator) -> NDArray[np.float64]:
    """float64[k]: how much nearer each pair's item is to her later one than to her earlier one, in cosines."""
    shape = (int(pairs[:, 0].max()) + 1, int(pairs[:, 1].max()) + 1)
    ones = sparse.csr_array((np.ones(len(pairs), np.float32), (pairs[:, 0], pairs[:, 1])), shape=shape)
    factors = fit_spectral(ones, _FACTORS, _LIKENESS, seed=int(generator.integers(2**31)))
    factors /= np.maximum(np.linalg.norm(factors, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    lengths = np.diff(starts)
    later, earlier = (
        np.repeat(pairs[starts[:-1] + generator.integers(lengths), 1], lengths) for _ in ("later", "earlier")
    )
    return np.asarray(np.einsum("kd,kd->k", factors[pairs[:, 1]], factors[later] - factors[earlier]), np.float64)
