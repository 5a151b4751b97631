"""Visits: who comes, which needs she brings, and which products she looks at for each need."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from batch.synthetic_shop.catalog import PARTNERS, Catalog, Floats, Ints
from batch.synthetic_shop.market import MarketDay
from batch.synthetic_shop.memory import Business, Memory
from batch.synthetic_shop.shoppers import Shoppers, favourite_leaf

_MAX_VIEWS = 60
_VIEWS_LOG_MEAN = 0.72
_VIEWS_LOG_SD = 1.08
MEAN_EVENTS = 4.6
"""Events of a visit, about; the simulation corrects itself by what it has produced."""

_TWO_NEEDS = 0.3
_PULL_OF_THE_NEW = 2.5
_RETURN_LIMIT = 0.4
_NEWS_SHARE = 0.13
_SAME_LEAF_SHARE = 0.3
_EXPLORING_SHARE = 0.15
_ANCHOR_CHOICES = 12
_VIEW_CHOICES = 6
# What a look after the first goes to: substitutes, partners, the leaf, elsewhere.
_LOOKS = np.cumsum([0.38, 0.10, 0.37])
_LOOK_AGAIN = 0.14
_CHOOSINESS = 2.0
_SATIATION = 2.5


@dataclass(frozen=True, slots=True)
class Views:
    """What was looked at in a round of visits, one row a view, ordered by visit and position.

    `visit` is the row of the round; `kind` the Business of the need where the view is its anchor, FRESH elsewhere.
    """

    visit: Ints
    position: Ints
    item: Ints
    kind: Ints


def draw_views(
    shopper: Ints, shoppers: Shoppers, memory: Memory, catalog: Catalog, market: MarketDay, random: np.random.Generator
) -> Views:
    """The views of one visit of each given shopper."""
    length = 1 + np.exp(random.normal(_VIEWS_LOG_MEAN, _VIEWS_LOG_SD, len(shopper))).astype(np.int64)
    length = np.minimum(length, _MAX_VIEWS)
    two = (length >= 3) & (random.random(len(shopper)) < _TWO_NEEDS)
    # The first need takes the larger half of the looks.
    first_length = np.where(two, length - length // 3, length)
    anchors = [_draw_anchors(shopper, shoppers, memory, catalog, market, random) for _ in range(2)]
    visit = np.repeat(np.arange(len(shopper)), length)
    position = np.arange(len(visit)) - np.repeat(np.cumsum(length) - length, length)
    second = position >= first_length[visit]
    anchor = np.where(second, anchors[1][0][visit], anchors[0][0][visit])
    kind = np.where(second, anchors[1][1][visit], anchors[0][1][visit])
    opens = (position == 0) | (position == first_length[visit])
    item = np.where(opens, anchor, _draw_looks(shopper[visit], anchor, shoppers, memory, catalog, market, random))
    again = ~opens & (random.random(len(visit)) < _LOOK_AGAIN)
    item = np.where(again, np.roll(item, 1), item)
    return Views(visit=visit, position=position, item=item, kind=np.where(opens, kind, Business.FRESH))


def _draw_anchors(
    shopper: Ints, shoppers: Shoppers, memory: Memory, catalog: Catalog, market: MarketDay, random: np.random.Generator
) -> tuple[Ints, Ints]:
    """The item each shopper comes for and why: unfinished business, news, or a fresh need in a category."""
    pull = memory.pull(shopper, market.day)
    total = pull.sum(1)
    returns = random.random(len(shopper)) * (total + _PULL_OF_THE_NEW) < _RETURN_LIMIT * total
    mark = random.random(len(shopper)) * total
    slot = np.minimum((np.cumsum(pull, 1) <= mark[:, None]).sum(1), pull.shape[1] - 1)
    pending = memory.item[shopper, slot].astype(np.int64)
    returns &= (pending >= 0) & (market.weight[np.maximum(pending, 0)] > 0)
    leaf = _draw_leaf(shopper, shoppers, memory, catalog, market, random)
    low, high = market.cumulative[catalog.leaf_start[leaf]], market.cumulative[catalog.leaf_start[leaf + 1]]
    news = (random.random(len(shopper)) < _NEWS_SHARE) & (market.hot[-1] > 0)
    running = np.where(news[:, None], _pick(market.hot, np.zeros(len(leaf)), np.full(len(leaf), market.hot[-1]), _ANCHOR_CHOICES, random),
                       _pick(market.cumulative, low, high, _ANCHOR_CHOICES, random))
    fresh = _prefer(shopper, running, shoppers, memory, catalog, random)
    return np.where(returns, pending, fresh), np.where(returns, memory.kind[shopper, slot], Business.FRESH)


def _draw_leaf(
    shopper: Ints, shoppers: Shoppers, memory: Memory, catalog: Catalog, market: MarketDay, random: np.random.Generator
) -> Ints:
    choice = random.random(len(shopper))
    leaf = favourite_leaf(shoppers, shopper, random)
    last = memory.last_leaf[shopper]
    leaf = np.where((choice < _SAME_LEAF_SHARE) & (last >= 0), last, leaf)
    anywhere = _pick(market.cumulative, np.zeros(len(shopper)), np.full(len(shopper), market.cumulative[-1]), 1, random)[:, 0]
    leaf = np.where(choice > 1 - _EXPLORING_SHARE, catalog.leaf[anywhere], leaf)
    empty = market.cumulative[catalog.leaf_start[leaf + 1]] <= market.cumulative[catalog.leaf_start[leaf]]
    return np.where(empty, catalog.leaf[anywhere], leaf)


def _draw_looks(
    shopper: Ints, anchor: Ints, shoppers: Shoppers, memory: Memory, catalog: Catalog, market: MarketDay, random: np.random.Generator
) -> Ints:
    """One more look for each (shopper, anchor): a substitute, a partner, the same leaf, or anything."""
    sort = np.searchsorted(_LOOKS, random.random(len(shopper)), side="right")
    family, leaf = catalog.family[anchor], catalog.leaf[anchor]
    low = np.select([sort == 0, sort == 2], [catalog.family_start[family], catalog.leaf_start[leaf]], 0)
    high = np.select([sort == 0, sort == 2], [catalog.family_start[family + 1], catalog.leaf_start[leaf + 1]], len(catalog))
    bounds = market.cumulative[low], market.cumulative[high]
    look = _prefer(shopper, _pick(market.cumulative, *bounds, _VIEW_CHOICES, random), shoppers, memory, catalog, random)
    partner = catalog.partners[anchor, random.integers(0, PARTNERS, len(shopper))]
    return np.where((sort == 1) & (market.weight[partner] > 0), partner, look)


def _pick(cumulative: Floats, low: Floats, high: Floats, choices: int, random: np.random.Generator) -> Ints:
    """(rows, choices) indexes drawn by weight between two values of the running sum of weights."""
    mark = low[:, None] + random.random((len(low), choices)) * (high - low)[:, None]
    return np.clip(np.searchsorted(cumulative, mark, side="right") - 1, 0, len(cumulative) - 2)


def _prefer(
    shopper: Ints, candidates: Ints, shoppers: Shoppers, memory: Memory, catalog: Catalog, random: np.random.Generator
) -> Ints:
    """One candidate a row by a softmax of liking (Gumbel-max), so choices mix popularity and taste.

    What she looked at lately attracts less: a second look is for what stayed in mind, which `Memory.pull` decides.
    """
    score = _CHOOSINESS * shoppers.affinity(shopper[:, None], candidates, catalog) + random.gumbel(size=candidates.shape)
    score -= _SATIATION * memory.knows(shopper, candidates)
    return np.take_along_axis(candidates, score.argmax(1)[:, None], 1)[:, 0]
