"""From views to carts and purchases, their instants, and what of them is remembered."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from batch.synthetic_shop.catalog import Floats, Ints
from batch.synthetic_shop.memory import REBUY_AFTER_DAYS, Business
from batch.synthetic_shop.scene import Scene
from batch.synthetic_shop.visits import Views

VIEW, CART, REMOVE, PURCHASE = range(4)
_CART_LOG_ODDS = -3.65
_LIKING = 1.05
_KIND_BONUS = np.array([0.3, 0.8, 1.8, 2.6, 0.0])
_DISCOUNT_BONUS = 3.0
_PARTNER_BONUS = 2.2
_PARTNER_LOOK = 0.4
_REMOVED = 0.08
_CHECKOUT = 0.42
_CARTED_BUY = 0.45
_VIEW_GAP = (4.35, 1.25)
_CART_GAP = (2.9, 0.9)
_CHECKOUT_GAP = (5.0, 0.8)
_LONGEST_GAP_S = 1_790.0
_MIND = 0.45
_STRENGTH = np.array([0.0, 1.6, 3.5, 5.0])
_PARTNER_SHARES = (0.6, 0.25, 0.15)
_WANTS_PARTNER = 0.75
_WANTS_REFILL = 0.7
# Events of a visit are put in order by position; what follows a view stands between two positions.
_AFTER_CART, _AFTER_LOOK, _AFTER_PARTNER, _AT_REMOVAL, _AT_CHECKOUT = 0.1, 0.2, 0.3, 900.0, 1_000.0


@dataclass(frozen=True, slots=True)
class Actions:
    """Events of a round of visits, one row each, ordered by visit and time; `after_ms` counts from the visit's start.

    `liking` is the shopper's affinity to the item.
    """

    visit: Ints
    item: Ints
    type_code: Ints
    after_ms: Ints
    liking: Floats

    def select(self, rows: npt.NDArray[np.bool_]) -> Actions:
        """The rows of a mask."""
        return Actions(*(getattr(self, name)[rows] for name in ("visit", "item", "type_code", "after_ms", "liking")))


@dataclass(frozen=True, slots=True)
class _Looks:
    """Looks at items and what may come of each; the rows of one visit need not stand together."""

    visit: Ints
    item: Ints
    order: Floats
    liking: Floats
    chance: Floats

    def take(self, rows: npt.NDArray[np.bool_]) -> _Looks:
        return _Looks(*(getattr(self, name)[rows] for name in ("visit", "item", "order", "liking", "chance")))

    def join(self, other: _Looks) -> _Looks:
        names = ("visit", "item", "order", "liking", "chance")
        return _Looks(*(np.concatenate([getattr(self, name), getattr(other, name)]) for name in names))


def draw_actions(shopper: Ints, views: Views, scene: Scene) -> Actions:
    """Carts, removals, partner looks and purchases that grow out of the views; `shopper` has one entry a visit."""
    catalog, random, items = scene.catalog, scene.random, len(scene.catalog)
    looks = _weigh(
        shopper,
        views.visit,
        views.item,
        order=views.position.astype(np.float64),
        bonus=_KIND_BONUS[views.kind],
        scene=scene,
    )
    first = _first_of_pair(looks, items)
    carted = first & (random.random(len(first)) < looks.chance)
    # What stands in the cart from an earlier visit may be bought without being put there again.
    waiting = first & ~carted & (views.kind == Business.CARTED) & (random.random(len(first)) < _CARTED_BUY)
    waiting &= looks.chance > 0
    partner = catalog.partners[looks.item, 0]
    tempted = carted & (random.random(len(first)) < _PARTNER_LOOK) & (scene.market.weight[partner] > 0)
    bonus = np.full(int(tempted.sum()), _PARTNER_BONUS)
    order = looks.order[tempted] + _AFTER_LOOK
    extra = _weigh(shopper, looks.visit[tempted], partner[tempted], order=order, bonus=bonus, scene=scene)
    new = ~np.isin(extra.visit * items + extra.item, looks.visit * items + looks.item)
    extra_carted = new & _first_of_pair(extra, items) & (random.random(len(new)) < extra.chance)

    carts = looks.take(carted).join(extra.take(extra_carted))
    removed = random.random(len(carts.visit)) < _REMOVED
    readiness = scene.shoppers.readiness[shopper]
    checkout = random.random(len(shopper)) < np.clip(_CHECKOUT + 0.15 * readiness, 0.05, 0.95)
    checkout[looks.visit[waiting]] = True
    sold = carts.take(checkout[carts.visit] & ~removed).join(looks.take(waiting))
    return _in_order(
        (looks, VIEW, looks.order),
        (extra, VIEW, extra.order),
        (carts, CART, carts.order + _AFTER_CART),
        (carts.take(removed), REMOVE, np.full(int(removed.sum()), _AT_REMOVAL)),
        (sold, PURCHASE, np.full(len(sold.visit), _AT_CHECKOUT)),
        random=random,
    )


def _weigh(shopper: Ints, visit: Ints, item: Ints, *, order: Floats, bonus: Floats, scene: Scene) -> _Looks:
    """Looks with the chance that each puts its item into the cart: 0 when it is out of stock or bought lately."""
    market, who = scene.market, shopper[visit]
    liking = scene.shoppers.affinity(who, item, scene.catalog)
    odds = _CART_LOG_ODDS + scene.shoppers.readiness[who] + _LIKING * liking + bonus
    odds += _DISCOUNT_BONUS * market.discount[item]
    possible = market.in_stock[item] & scene.memory.may_buy(who, item, market.day, scene.catalog)
    return _Looks(visit=visit, item=item, order=order, liking=liking, chance=possible / (1 + np.exp(-odds)))


def _in_order(*parts: tuple[_Looks, int, Floats], random: np.random.Generator) -> Actions:
    visit = np.concatenate([looks.visit for looks, _, _ in parts])
    item = np.concatenate([looks.item for looks, _, _ in parts])
    code = np.concatenate([np.full(len(looks.visit), type_code) for looks, type_code, _ in parts])
    rows = np.lexsort((item, np.concatenate([order for _, _, order in parts]), visit))
    liking = np.concatenate([looks.liking for looks, _, _ in parts])[rows]
    visit, item, code = visit[rows], item[rows], code[rows]
    after_ms = _draw_instants(visit, code, random)
    return Actions(visit=visit, item=item, type_code=code, after_ms=after_ms, liking=liking)


def _first_of_pair(looks: _Looks, items: int) -> npt.NDArray[np.bool_]:
    first = np.zeros(len(looks.visit), bool)
    first[np.unique(looks.visit * items + looks.item, return_index=True)[1]] = True
    return first


def _draw_instants(visit: Ints, code: Ints, random: np.random.Generator) -> Ints:
    normal = random.normal(size=len(visit))
    mean = np.choose(code, [_VIEW_GAP[0], _CART_GAP[0], _VIEW_GAP[0], _CHECKOUT_GAP[0]])
    spread = np.choose(code, [_VIEW_GAP[1], _CART_GAP[1], _VIEW_GAP[1], _CHECKOUT_GAP[1]])
    gap = np.minimum(np.exp(mean + spread * normal), _LONGEST_GAP_S)
    opens = np.diff(visit, prepend=-1) != 0
    # One checkout buys everything at one instant.
    gap[opens | ((code == PURCHASE) & (np.roll(code, 1) == PURCHASE))] = 0.0
    total: Ints = np.cumsum((gap * 1000).astype(np.int64))
    after: Ints = total - np.repeat(total[opens], np.diff(np.append(np.flatnonzero(opens), len(visit))))
    return after


def settle(shopper: Ints, actions: Actions, scene: Scene) -> None:
    """Write into the memory what the visits leave behind; `shopper` has one entry a visit, no shopper twice."""
    memory, catalog, random, day = scene.memory, scene.catalog, scene.random, scene.market.day
    who, item, code = shopper[actions.visit], actions.item, actions.type_code
    last = np.append(np.diff(actions.visit) != 0, True)[: len(who)]
    memory.last_leaf[who[last]] = catalog.leaf[item[last]]
    memory.momentum[shopper] += 1
    memory.see(who[code == VIEW], item[code == VIEW])
    bought = code == PURCHASE
    memory.buy(who[bought], item[bought], day, catalog)
    pair = actions.visit * len(catalog) + item
    need = actions.visit * len(catalog) + catalog.family[item]
    settled = np.isin(need, need[bought])
    # The liked part of what was looked at stays in mind, the more liked the stronger.
    liking = _MIND / (1 + np.exp(-1.4 * (actions.liking - 1.0)))
    viewed = (code == VIEW) & (random.random(len(who)) < liking) & ~settled
    left = (code == CART) & ~np.isin(pair, pair[(code == REMOVE) | bought])
    partner = catalog.partners[item, random.choice(catalog.partners.shape[1], len(item), p=_PARTNER_SHARES)]
    wants = bought & (random.random(len(item)) < _WANTS_PARTNER)
    wants[wants] = memory.may_buy(who[wants], partner[wants], day, catalog)
    soon = day + random.geometric(0.4, len(item)) - 1
    refill = bought & catalog.consumable[item] & (random.random(len(item)) < _WANTS_REFILL)
    later = day + REBUY_AFTER_DAYS + random.geometric(0.15, len(item))
    rows = np.concatenate([np.flatnonzero(mask) for mask in (viewed, left, wants, refill)])
    sizes = [int(mask.sum()) for mask in (viewed, left, wants, refill)]
    kind = np.repeat([Business.VIEWED, Business.CARTED, Business.PARTNER, Business.REFILL], sizes)
    strength = np.where(kind == Business.VIEWED, liking[rows], _STRENGTH[kind])
    due = np.select([kind == Business.PARTNER, kind == Business.REFILL], [soon[rows], later[rows]], day)
    what = np.where(kind == Business.PARTNER, partner[rows], item[rows])
    memory.remember(who[rows], what, strength=strength, due_day=due, kind=kind, day=day)
