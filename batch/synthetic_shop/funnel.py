"""From views to carts and purchases, their instants, and what of them is remembered."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from batch.synthetic_shop.catalog import Catalog, Floats, Ints
from batch.synthetic_shop.market import MarketDay
from batch.synthetic_shop.memory import REBUY_AFTER_DAYS, Business, Memory
from batch.synthetic_shop.shoppers import Shoppers
from batch.synthetic_shop.visits import Views

VIEW, CART, REMOVE, PURCHASE = range(4)
_CART_LOG_ODDS = -3.75
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


@dataclass(frozen=True, slots=True)
class Actions:
    """Events of a round of visits, one row each, ordered by visit and time; `after_ms` counts from the visit's start."""

    visit: Ints
    item: Ints
    type_code: Ints
    after_ms: Ints
    liking: Floats

    def select(self, rows: npt.NDArray[np.bool_]) -> Actions:
        """The rows of a mask."""
        return Actions(*(getattr(self, name)[rows] for name in ("visit", "item", "type_code", "after_ms", "liking")))


def draw_actions(
    shopper: Ints, views: Views, shoppers: Shoppers, memory: Memory, catalog: Catalog, market: MarketDay, random: np.random.Generator
) -> Actions:
    """Carts, removals, partner looks and purchases that grow out of the views; `shopper` has one entry a visit."""

    def cart_chance(visit: Ints, item: Ints, bonus: Floats) -> tuple[Floats, Floats]:
        who = shopper[visit]
        liking = shoppers.affinity(who, item, catalog)
        odds = _CART_LOG_ODDS + shoppers.readiness[who] + _LIKING * liking + bonus + _DISCOUNT_BONUS * market.discount[item]
        possible = market.in_stock[item] & memory.may_buy(who, item, market.day, catalog)
        return possible / (1 + np.exp(-odds)), liking

    chance, liking = cart_chance(views.visit, views.item, _KIND_BONUS[views.kind])
    first = _first_of_pair(views.visit, views.item, len(catalog))
    carted = first & (random.random(len(chance)) < chance)
    # What stands in the cart from an earlier visit may be bought without being put there again.
    waiting = first & ~carted & (views.kind == Business.CARTED) & (chance > 0) & (random.random(len(chance)) < _CARTED_BUY)

    partner = catalog.partners[views.item, 0]
    looked = carted & (random.random(len(chance)) < _PARTNER_LOOK) & (market.weight[partner] > 0)
    more_visit, more_item = views.visit[looked], partner[looked]
    more_chance, more_liking = cart_chance(more_visit, more_item, np.full(len(more_item), _PARTNER_BONUS))
    new = ~np.isin(more_visit * len(catalog) + more_item, views.visit * len(catalog) + views.item)
    more_carted = new & _first_of_pair(more_visit, more_item, len(catalog)) & (random.random(len(more_item)) < more_chance)

    cart_visit = np.concatenate([views.visit[carted], more_visit[more_carted]])
    cart_item = np.concatenate([views.item[carted], more_item[more_carted]])
    removed = random.random(len(cart_visit)) < _REMOVED
    checkout = random.random(len(shopper)) < np.clip(_CHECKOUT + 0.15 * shoppers.readiness[shopper], 0.05, 0.95)
    checkout[views.visit[waiting]] = True
    sold = checkout[cart_visit] & ~removed
    base = views.position.astype(np.float64)
    parts = [
        (views.visit, views.item, VIEW, base),
        (views.visit[carted], views.item[carted], CART, base[carted] + 0.1),
        (more_visit, more_item, VIEW, base[looked] + 0.2),
        (more_visit[more_carted], more_item[more_carted], CART, base[looked][more_carted] + 0.3),
        (cart_visit[removed], cart_item[removed], REMOVE, np.full(int(removed.sum()), 900.0)),
        (cart_visit[sold], cart_item[sold], PURCHASE, np.full(int(sold.sum()), 1000.0)),
        (views.visit[waiting], views.item[waiting], PURCHASE, np.full(int(waiting.sum()), 1000.0)),
    ]
    visit = np.concatenate([part[0] for part in parts])
    item = np.concatenate([part[1] for part in parts])
    code = np.concatenate([np.full(len(part[0]), part[2]) for part in parts])
    order = np.lexsort((item, np.concatenate([part[3] for part in parts]), visit))
    visit, item, code = visit[order], item[order], code[order]
    all_liking = np.concatenate([liking, more_liking])
    keep = np.full(len(visit), -np.inf)
    keep[code == VIEW] = _aligned(order, all_liking, len(views.visit), len(parts[1][0]), len(more_visit))
    return Actions(visit=visit, item=item, type_code=code, after_ms=_draw_instants(visit, code, random), liking=keep)


def _aligned(order: Ints, liking: Floats, views: int, carts: int, more: int) -> Floats:
    """The likings of all view rows in sorted order: the views come first before sorting, the partner looks after the carts."""
    del more
    rows = order[(order < views) | ((order >= views + carts) & (order < views + carts + len(liking) - views))]
    return liking[np.where(rows < views, rows, rows - carts)]


def _first_of_pair(visit: Ints, item: Ints, items: int) -> npt.NDArray[np.bool_]:
    first = np.zeros(len(visit), bool)
    first[np.unique(visit * items + item, return_index=True)[1]] = True
    return first


def _draw_instants(visit: Ints, code: Ints, random: np.random.Generator) -> Ints:
    normal = random.normal(size=len(visit))
    mean = np.choose(code, [_VIEW_GAP[0], _CART_GAP[0], _VIEW_GAP[0], _CHECKOUT_GAP[0]])
    spread = np.choose(code, [_VIEW_GAP[1], _CART_GAP[1], _VIEW_GAP[1], _CHECKOUT_GAP[1]])
    gap = np.minimum(np.exp(mean + spread * normal), _LONGEST_GAP_S)
    opens = np.diff(visit, prepend=-1) != 0
    # One checkout buys everything at one instant.
    gap[opens | ((code == PURCHASE) & (np.roll(code, 1) == PURCHASE))] = 0.0
    total = np.cumsum((gap * 1000).astype(np.int64))
    return total - np.repeat(total[opens], np.diff(np.append(np.flatnonzero(opens), len(visit))))


def settle(
    shopper: Ints, actions: Actions, memory: Memory, catalog: Catalog, day: int, random: np.random.Generator
) -> None:
    """Write into the memory what the visits leave behind; `shopper` has one entry a visit, no shopper twice."""
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
    memory.remember(who[rows], what, strength, due, kind, day)
