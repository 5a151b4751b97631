"""The conditional logit (McFadden, 1974): which of a page's candidates is taken, by a softmax over the page."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from batch.models.ranker_columns import Column
from batch.models.ranking_rows import RankingRows, page_gains, starts_of
from shared.errors import ConfigurationError
from shared.ranking.linear_terms import Z_LIMIT, LinearTerms

_ROWS_AT_ONCE: Final = 32_768
_MAX_STEPS: Final = 50
_MAX_HALVINGS: Final = 12
_LEAST_GAIN: Final = 1e-8
_ARMIJO: Final = 1e-4
_LEAST_SPREAD: Final = 1e-6
"""A column whose deviation within pages is below this orders nothing."""


@dataclass(frozen=True, slots=True)
class LogitParams:
    """How the conditional logit is fitted.

    l2: penalties on the squared standardised weights per page, of which the held-out users choose; popularity: may it
    read what says the same of an item to everyone; many: a page with n positives counts n ** many times.
    """

    l2: tuple[float, ...] = (0.1, 0.03, 0.01, 0.003, 0.001, 0.0001)
    popularity: bool = True
    many: float = 0.5


@dataclass(frozen=True, slots=True)
class _Pages:
    """Standardised float32[n, k], each row's share of its page's gain, each page's weight (sum 1), and its length."""

    design: NDArray[np.float32]
    target: NDArray[np.float64]
    weight: NDArray[np.float64]
    lengths: NDArray[np.int64]
    blocks: list[tuple[slice, slice]]

    def loss(self, weights: NDArray[np.float64]) -> float:
        """Weighted mean log loss of the pages' choices."""
        return sum(self._likelihoods(block, weights)[0] for block in self.blocks)

    def derivatives(self, weights: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Gradient [k] and Hessian [k, k] of `loss`."""
        count = self.design.shape[1]
        gradient, hessian = np.zeros(count), np.zeros((count, count))
        for block in self.blocks:
            rows, pages = block
            _, likely = self._likelihoods(block, weights)
            design, starts = self.design[rows], starts_of(self.lengths[pages])
            by_row = np.repeat(self.weight[pages], self.lengths[pages])
            gradient += (by_row * (likely - self.target[rows])).astype(np.float32) @ design
            weighted = design * np.sqrt(by_row * likely).astype(np.float32)[:, None]
            hessian += weighted.T @ weighted
            mean = np.add.reduceat(design * likely.astype(np.float32)[:, None], starts, axis=0)
            mean *= np.sqrt(self.weight[pages]).astype(np.float32)[:, None]
            hessian -= mean.T @ mean
        return gradient, hessian

    def _likelihoods(
        self, block: tuple[slice, slice], weights: NDArray[np.float64]
    ) -> tuple[float, NDArray[np.float64]]:
        """A block's part of the loss, and the softmax of its rows within their pages."""
        rows, pages = block
        lengths = self.lengths[pages]
        starts = starts_of(lengths)
        scores = (self.design[rows] @ weights.astype(np.float32)).astype(np.float64)
        scores -= np.repeat(np.maximum.reduceat(scores, starts), lengths)
        powers = np.exp(scores)
        total = np.add.reduceat(powers, starts)
        said = np.add.reduceat(self.target[rows] * scores, starts)
        return float(self.weight[pages] @ (np.log(total) - said)), powers / np.repeat(total, lengths)


def fit_logit(
    training: RankingRows,
    held_out: RankingRows | None,
    columns: Sequence[Column],
    params: LogitParams,
    label_gain: Sequence[float],
) -> tuple[LinearTerms, float]:
    """The terms, and the penalty with which held-out users' choices are told best (the strongest without such users).

    Penalties are tried from the strongest on, each from the weights of the one before, until the held-out loss rises
    twice. Columns that do not vary within any page drop out. Raises ConfigurationError without a positive label.
    """
    terms = _standard_terms(training.checked(), columns)
    pages = _pages(training, terms, params, label_gain)
    judged = (
        None if held_out is None or not len(held_out.groups) else _pages(held_out.checked(), terms, params, label_gain)
    )
    weights = np.zeros(len(terms.weight))
    best: tuple[float, float, NDArray[np.float64]] | None = None
    worse = 0
    for l2 in sorted(params.l2, reverse=True):
        weights = _descend(pages, weights, l2)
        loss = 0.0 if judged is None else judged.loss(weights)
        if best is None or loss < best[0]:
            best, worse = (loss, l2, weights), 0
        else:
            worse += 1
        if judged is None or worse == 2:
            break
    if best is None:
        raise ConfigurationError("the logit needs at least one penalty to try")
    return replace(terms, weight=best[2]), best[1]


def refit(
    training: RankingRows, terms: LinearTerms, params: LogitParams, label_gain: Sequence[float], l2: float
) -> LinearTerms:
    """The same terms with weights for other rows, starting from those they have."""
    return replace(terms, weight=_descend(_pages(training, terms, params, label_gain), terms.weight, l2))


def _descend(pages: _Pages, start: NDArray[np.float64], l2: float) -> NDArray[np.float64]:
    """Newton's method with halved steps: the loss is convex, and k is small enough for its Hessian."""
    weights = start
    loss = pages.loss(weights) + l2 / 2 * float(weights @ weights)
    for _ in range(_MAX_STEPS):
        gradient, hessian = pages.derivatives(weights)
        gradient += l2 * weights
        step = np.linalg.solve(hessian + l2 * np.eye(len(weights)), gradient)
        promised = float(gradient @ step)
        if promised < _LEAST_GAIN:
            break
        for halving in range(_MAX_HALVINGS):
            tried = weights - step / 2**halving
            tried_loss = pages.loss(tried) + l2 / 2 * float(tried @ tried)
            if tried_loss < loss - _ARMIJO * promised / 2**halving:
                break
        else:
            break
        weights, loss = tried, tried_loss
    return weights


def _standard_terms(training: RankingRows, columns: Sequence[Column]) -> LinearTerms:
    """Terms of weight 0 over the columns that vary within pages, scaled by how much they do."""
    width = training.features.shape[1]
    count = len(columns)
    terms = LinearTerms(
        feature=np.array([one.feature for one in columns], np.int16),
        offset=np.array([np.nan if one.offset is None else one.offset for one in columns], np.float32),
        fill=np.array([one.fill for one in columns], np.float32),
        mean=np.zeros(count),
        scale=np.ones(count),
        weight=np.zeros(count),
        features_count=np.array([width], np.int64),
    )
    if count and int(terms.feature.max()) >= width:
        raise ConfigurationError(f"the rows have {width} features, the columns of the logit name more")
    total, within, rows = np.zeros(count), np.zeros(count), 0
    for block, pages in _blocks(training.groups):
        lengths = training.groups[pages].astype(np.int64)
        values = terms.transformed(training.features[block])
        sums = np.add.reduceat(values, starts_of(lengths), axis=0)
        centred = values - np.repeat(sums / lengths[:, None], lengths, axis=0)
        total += sums.sum(axis=0)
        within += np.einsum("ij,ij->j", centred, centred)
        rows += len(values)
    spread = np.sqrt(within / max(rows, 1))
    mean = total / max(rows, 1)
    kept = np.flatnonzero(spread > _LEAST_SPREAD * np.maximum(1.0, np.abs(mean)))
    if not len(kept):
        kept = np.arange(min(count, 1))  # nothing to rank by: one term, whose weight stays 0
        spread = np.ones(count)
    return LinearTerms(
        feature=terms.feature[kept],
        offset=terms.offset[kept],
        fill=terms.fill[kept],
        # float32 numbers, so that the exported graph subtracts and divides by the very same.
        mean=mean[kept].astype(np.float32).astype(np.float64),
        scale=spread[kept].astype(np.float32).astype(np.float64),
        weight=np.zeros(len(kept)),
        features_count=terms.features_count,
    )


def _blocks(groups: NDArray[np.integer]) -> list[tuple[slice, slice]]:
    """Slices of rows and of pages, whole pages each, of about `_ROWS_AT_ONCE` rows."""
    starts = np.append(starts_of(groups), int(groups.sum()))
    turns = np.flatnonzero(np.diff(starts[:-1] // _ROWS_AT_ONCE)) + 1
    edges = [0, *turns.tolist(), len(groups)]
    return [
        (slice(int(starts[begin]), int(starts[end])), slice(begin, end)) for begin, end in itertools.pairwise(edges)
    ]


def _pages(rows: RankingRows, terms: LinearTerms, params: LogitParams, label_gain: Sequence[float]) -> _Pages:
    gains = page_gains(rows, label_gain)
    starts, lengths = starts_of(rows.groups), rows.groups.astype(np.int64)
    total = np.add.reduceat(gains, starts)
    if not np.any(total > 0):
        raise ConfigurationError("no row has a positive label; candidates and label period do not meet")
    graded = gains > 0
    counted = graded if rows.weights is None else graded * rows.weights
    positives = np.maximum(np.add.reduceat(graded.astype(np.int64), starts), 1)
    weight = np.add.reduceat(counted.astype(np.float64), starts) * positives ** (params.many - 1.0)
    design = np.empty((len(gains), len(terms.feature)), np.float32)
    for first in range(0, len(gains), _ROWS_AT_ONCE):
        part = slice(first, first + _ROWS_AT_ONCE)
        z = (terms.transformed(rows.features[part]) - terms.mean) / terms.scale
        design[part] = np.clip(z, -Z_LIMIT, Z_LIMIT)
    share = gains / np.repeat(np.maximum(total, np.finfo(np.float64).tiny), lengths)
    return _Pages(design, share, weight / weight.sum(), lengths, _blocks(rows.groups))
