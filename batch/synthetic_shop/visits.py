"""Visits: who comes, which needs she brings, and which products she looks at for each need."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from batch.synthetic_shop.catalog import PARTNERS, Floats, Ints
from batch.synthetic_shop.memory import Business
from batch.synthetic_shop.scene import Scene
from batch.synthetic_shop.shoppers import favourite_leaf

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
_EXPLORING_SHARE = 0.1
_ANCHOR_CHOICES = 12
_VIEW_CHOICES = 6
# What a look after the first goes to: substitutes, partners, the leaf, elsewhere.
_LOOKS = np.cumsum([0.40, 0.12, 0.38])
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


def draw_views(shopper: Ints, scene: Scene) -> Views:
    """The views of one visit of each given shopper."""
    random, visits = scene.random, len(shopper)
    length = 1 + np.exp(random.normal(_VIEWS_LOG_MEAN, _VIEWS_LOG_SD, visits)).astype(np.int64)
    length = np.minimum(length, _MAX_VIEWS)
    two = (length >= 3) & (random.random(visits) < _TWO_NEEDS)
    # The first need takes the larger part of the looks.
    first_length = np.where(two, length - length // 3, length)
    (first_anchor, first_kind), (second_anchor, second_kind) = (_draw_anchors(shopper, scene) for _ in range(2))
    visit = np.repeat(np.arange(visits), length)
    position = np.arange(len(visit)) - np.repeat(np.cumsum(length) - length, length)
    second = position >= first_length[visit]
    anchor = np.where(second, second_anchor[visit], first_anchor[visit])
    kind = np.where(second, second_kind[visit], first_kind[visit])
    opens = (position == 0) | (position == first_length[visit])
    item = np.where(opens, anchor, _draw_looks(shopper[visit], anchor, scene))
    again = ~opens & (random.random(len(visit)) < _LOOK_AGAIN)
    item = np.where(again, np.roll(item, 1), item)
    return Views(visit=visit, position=position, item=item, kind=np.where(opens, kind, Business.FRESH))


def _draw_anchors(shopper: Ints, scene: Scene) -> tuple[Ints, Ints]:
    """The item each shopper comes for and why: unfinished business, news, or a fresh need in a category."""
    memory, market, random, visits = scene.memory, scene.market, scene.random, len(shopper)
    pull = memory.pull(shopper, market.day)
    total = pull.sum(1)
    returns = random.random(visits) * (total + _PULL_OF_THE_NEW) < _RETURN_LIMIT * total
    mark = random.random(visits) * total
    slot = np.minimum((np.cumsum(pull, 1) <= mark[:, None]).sum(1), pull.shape[1] - 1)
    pending = memory.item[shopper, slot].astype(np.int64)
    returns &= (pending >= 0) & (market.weight[np.maximum(pending, 0)] > 0)
    leaf = _draw_leaf(shopper, scene)
    start, stop = scene.catalog.leaf_start[leaf], scene.catalog.leaf_start[leaf + 1]
    of_leaf = _pick(market.cumulative, start, stop, _ANCHOR_CHOICES, random)
    everywhere = np.zeros(visits, np.int64), np.full(visits, len(scene.catalog))
    of_news = _pick(market.hot, *everywhere, _ANCHOR_CHOICES, random)
    news = (random.random(visits) < _NEWS_SHARE) & (market.hot[-1] > 0)
    fresh = _prefer(shopper, np.where(news[:, None], of_news, of_leaf), scene)
    return np.where(returns, pending, fresh), np.where(returns, memory.kind[shopper, slot], Business.FRESH)


def _draw_leaf(shopper: Ints, scene: Scene) -> Ints:
    """The category of a fresh need: the last visit's, a favourite one, or one of what anybody looks at."""
    catalog, cumulative, random = scene.catalog, scene.market.cumulative, scene.random
    choice = random.random(len(shopper))
    leaf = favourite_leaf(scene.shoppers, shopper, random)
    last = scene.memory.last_leaf[shopper]
    leaf = np.where((choice < _SAME_LEAF_SHARE) & (last >= 0), last, leaf)
    everywhere = np.zeros(len(shopper), np.int64), np.full(len(shopper), len(catalog))
    anywhere = catalog.leaf[_pick(cumulative, *everywhere, 1, random)[:, 0]]
    empty = cumulative[catalog.leaf_start[leaf + 1]] <= cumulative[catalog.leaf_start[leaf]]
    return np.where((choice > 1 - _EXPLORING_SHARE) | empty, anywhere, leaf)


def _draw_looks(shopper: Ints, anchor: Ints, scene: Scene) -> Ints:
    """One more look for each (shopper, anchor): a substitute, a partner, the same leaf, or anything."""
    catalog, market, random = scene.catalog, scene.market, scene.random
    sort = np.searchsorted(_LOOKS, random.random(len(shopper)), side="right")
    family, leaf = catalog.family[anchor], catalog.leaf[anchor]
    start = np.select([sort == 0, sort == 2], [catalog.family_start[family], catalog.leaf_start[leaf]], 0)
    stop = np.select(
        [sort == 0, sort == 2], [catalog.family_start[family + 1], catalog.leaf_start[leaf + 1]], len(catalog)
    )
    look = _prefer(shopper, _pick(market.cumulative, start, stop, _VIEW_CHOICES, random), scene)
    partner = catalog.partners[anchor, random.integers(0, PARTNERS, len(shopper))]
    return np.where((sort == 1) & (market.weight[partner] > 0), partner, look)


def _pick(cumulative: Floats, start: Ints, stop: Ints, choices: int, random: np.random.Generator) -> Ints:
    """(rows, choices) item indexes from start to before stop, drawn by weight from its running sum."""
    low, high = cumulative[start], cumulative[stop]
    mark = low[:, None] + random.random((len(low), choices)) * (high - low)[:, None]
    return np.clip(np.searchsorted(cumulative, mark, side="right") - 1, 0, len(cumulative) - 2)


def _prefer(shopper: Ints, candidates: Ints, scene: Scene) -> Ints:
    """One candidate a row by a softmax of liking (Gumbel-max), so choices mix popularity and taste.

    What she looked at lately attracts less: a second look is for what stayed in mind, which `Memory.pull` decides.
    """
    liking = scene.shoppers.affinity(shopper[:, None], candidates, scene.catalog)
    score = _CHOOSINESS * liking + scene.random.gumbel(size=candidates.shape)
    score -= _SATIATION * scene.memory.knows(shopper, candidates)
    return np.take_along_axis(candidates, score.argmax(1)[:, None], 1)[:, 0]
