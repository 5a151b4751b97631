"""The story at the terminal: a customer, her list and why, three clicks and what moved, a stranger, and the numbers.

Everything it says of the system is a claim: computed from the API's answers while the story runs.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from local.casting import Customer
from local.claims import Claims
from local.page_comparison import (
    distinct_scores,
    in_ranker_order,
    mean_sources,
    moves,
    naming,
    personal,
    rank_mass,
    risen,
)
from local.shopper import Page, ShopApi, Shopper, Shown
from local.story_screen import Screen, title_of

PAGE: Final = 20
DEEP: Final = 100
CLICKS: Final = 3
SEEN_WITHIN_S: Final = 1.0
BYSTANDER_MAY_LOSE: Final = 3
"""Places of exploration on two pages, and one item that time or the clicks on it moved."""

POPULAR_POOL: Final = 40
MOST_PROBES: Final = 12
MEASURED_PAGES: Final = 200
JUDGES: Final = 10
"""Customers beside her on whose pages the ranker's direction is judged: one page alone may be an exception."""


@dataclass
class Story:
    """One run: who speaks to which API on what screen, and the releases that answered so far."""

    screen: Screen
    api: ShopApi
    claims: Claims
    release_id: str
    releases: set[str] = field(default_factory=set)

    def tell(self, heroine: Customer, others: Sequence[str]) -> None:
        """All chapters. Raises InfrastructureFault and UnexpectedAnswer when the API fails."""
        shopper = Shopper(self.api, heroine.user_id)
        stranger = Shopper(self.api, f"guest-{uuid.uuid4().hex[:12]}")
        touched = self.introduce(shopper, heroine)
        page = self.her_list(shopper, others)
        bystander = Shopper(self.api, next(user for user in others if user != heroine.user_id))
        unmoved = self.look(bystander)
        clicked = self.three_clicks(shopper, page, touched)
        self.bystander_keeps(unmoved, self.look(bystander))
        self.a_stranger(stranger, page)
        self.around_an_item(clicked)
        self.how_long(others)

    def introduce(self, shopper: Shopper, heroine: Customer) -> set[str]:
        """Who she is; returns the items she had to do with lately."""
        self.screen.chapter(f"Who she is: {heroine.user_id}")
        profile = shopper.profile()
        likes = ", ".join(str(entry["category"]) for entry in profile["top_categories"][:5])
        self.screen.say(f"{heroine.actions} actions so far, {heroine.purchases} of them purchases; she likes {likes}")
        history = profile["recent_history"]
        for entry in history[:5]:
            self.screen.say(f"  {entry['event_type']:10} {title_of(entry)}")
        self.claims.check(
            "the shop knows her from its history", bool(history), f"{len(history)} actions in her profile"
        )
        return {entry["item_id"] for entry in history}

    def her_list(self, shopper: Shopper, others: Sequence[str]) -> Page:
        """Her list and why."""
        self.screen.chapter("Her list, and why")
        page = self.look(shopper)
        self.screen.page(page)
        self.claims.check("her page is full", len(page.items) == PAGE, f"{len(page.items)} of {PAGE} items")
        self.claims.check("nothing fell back", page.fallback is None, f"fallback: {page.fallback or 'none'}")
        self.in_stock(page)
        self.ranked(page, [self.look(Shopper(self.api, user), DEEP) for user in [shopper.user_id, *others[:JUDGES]]])
        own = personal(page.items)
        sentence = "most of her page comes from what is known about her"
        self.claims.check(sentence, len(own) > PAGE // 2, f"{len(own)} of {len(page.items)} items")
        return page

    def ranked(self, page: Page, judged: Sequence[Page]) -> None:
        """Claim that a ranker worked on the page, and on many customers' pages in the right direction."""
        different = distinct_scores(page.items)
        self.claims.check(
            "the ranker tells her items apart", different > PAGE // 2, f"{different} different scores on the page"
        )
        ends = f"from {page.items[0].score:.3f} to {page.items[-1].score:.3f}" if page.items else "no items"
        self.claims.check(
            "the best score comes first, except where variety moved an item", in_ranker_order(page.items), ends
        )
        top = mean_sources([item for one in judged for item in one.items[:PAGE]])
        bottom = mean_sources([item for one in judged for item in one.items[-PAGE:]])
        self.claims.check(
            "what more sources agree on stands higher",
            top > bottom,
            f"{len(judged)} customers: {top:.2f} sources an item at the top, {bottom:.2f} at rank {DEEP}",
        )

    def three_clicks(self, shopper: Shopper, page: Page, touched: set[str]) -> list[Shown]:
        """Three clicks in one neighbourhood that is not on her page, and what moved."""
        self.screen.chapter("Three clicks")
        clicked = self.neighbourhood(page, touched)
        neighbours = {near.item_id for item in clicked for near in self.api.similar_items(item.item_id)}
        neighbours -= {*page.ids, *(item.item_id for item in clicked)}
        before = self.look(shopper, DEEP)
        for item in clicked:
            self.screen.say(f"she looks at {item.title}", item.category)
            shopper.act(item.item_id)
        seen_s = shopper.wait_until_seen([item.item_id for item in clicked])
        self.claims.check(
            "her clicks count within a second",
            seen_s <= SEEN_WITHIN_S,
            f"all are in her profile after {seen_s:.3f} s",
        )
        after, deep = self.look(shopper), self.look(shopper, DEEP)
        self.screen.page(after, page)
        new = sum(old is None for _, old in moves(page, after))
        self.claims.check("her list changed", after.ids != page.ids, f"{new} of {len(after.items)} items are new")
        self.neighbours_rose(neighbours, before, deep)
        titles = [item.title for item in clicked]
        near, far = len(naming(after.items, titles)), len(naming(deep.items, titles))
        evidence = f"{near} of the first {PAGE} reasons, {far} of the first {len(deep.items)}"
        self.claims.check("reasons name what she clicked", bool(far), evidence)
        self.in_stock(after)
        return clicked

    def neighbours_rose(self, neighbours: set[str], before: Page, after: Page) -> None:
        """Claim that items like the clicked ones, none of them on the page before, stand higher now."""
        higher = risen(before.ranks, after.ranks, neighbours)
        gone, came = rank_mass(before.ranks, neighbours), rank_mass(after.ranks, neighbours)
        self.claims.check(
            "neighbours of what she clicked rose",
            bool(higher) and came > gone,
            f"{len(higher)} of {len(neighbours)} stand higher; their rank mass went from {gone:.2f} to {came:.2f}",
        )

    def bystander_keeps(self, before: Page, after: Page) -> None:
        """Claim that it was the clicks: a customer who did nothing keeps her page, but for what is random or ages."""
        kept = len(set(before.ids) & set(after.ids))
        self.claims.check(
            "a customer who did not click keeps her page",
            kept >= len(before.ids) - BYSTANDER_MAY_LOSE,
            f"{kept} of {len(before.ids)} items stayed",
        )

    def a_stranger(self, stranger: Shopper, other: Page) -> None:
        """Somebody never seen, before and after the first click."""
        self.screen.chapter(f"A stranger: {stranger.user_id}")
        first = self.look(stranger)
        self.screen.page(first, limit=10)
        own = personal(first.items)
        self.claims.check(
            "the stranger's first page is what is popular and new, and says that she is not known",
            len(first.items) == PAGE and not own and first.fallback is not None,
            f"{len(first.items)} items, {len(own)} from a personal source, fallback: {first.fallback or 'none'}",
        )
        shared = len(set(first.ids) & set(other.ids))
        self.claims.check("it is another page than the customer's", shared < PAGE // 2, f"{shared} items in common")
        chosen = first.items[PAGE // 4]
        self.screen.say(f"the stranger looks at {chosen.title}", chosen.category)
        stranger.act(chosen.item_id, recommendation_id=first.recommendation_id)
        stranger.wait_until_seen([chosen.item_id])
        second = self.look(stranger)
        self.screen.page(second, first, limit=10)
        now = personal(second.items)
        self.claims.check(
            "one click makes the page personal",
            second.ids != first.ids and bool(now) and second.fallback is None,
            f"{len(now)} items come from a personal source, fallback: {second.fallback or 'none'}",
        )

    def around_an_item(self, clicked: Sequence[Shown]) -> None:
        """Similar items, and what is bought together."""
        self.screen.chapter("Around an item")
        item = clicked[0]
        similar = self.api.get("similar_items", item.item_id, limit=5)["items"]
        self.screen.items(f"similar to {item.title}", similar)
        own = item.item_id in {entry["item_id"] for entry in similar}
        self.claims.check(
            "an item has similar items, itself not among them", bool(similar) and not own, f"{len(similar)} items"
        )
        together: list[dict[str, Any]] = []
        for item in self.api.popular(POPULAR_POOL):
            together = self.api.get("bought_together", item.item_id, limit=5)["items"]
            if together:
                break
        self.screen.items(f"bought together with {item.title}", together)
        self.claims.check(
            "partners are bought together more often than chance would have it",
            bool(together) and all(partner["lift"] > 1 for partner in together),
            ", ".join(f"lift {partner['lift']:.1f}" for partner in together),
        )

    def how_long(self, users: Sequence[str]) -> None:
        """How long the answers took, this client's time included, and whose they were."""
        self.screen.chapter("How long it takes")
        self.api.took_ms["recommend"].clear()
        for user in users[:MEASURED_PAGES]:
            self.look(Shopper(self.api, user))
        self.screen.times(self.api.took_ms)
        named = ", ".join(sorted(self.releases))
        self.claims.check("every page came from the published release", self.releases == {self.release_id}, named)

    def look(self, shopper: Shopper, limit: int = PAGE) -> Page:
        """Her page, its release noted."""
        page = shopper.page(limit)
        self.releases.add(page.release)
        return page

    def in_stock(self, page: Page) -> None:
        """Claim that everything on a page can be bought."""
        gone = [item.item_id for item in page.items if not self.api.can_be_bought(item.item_id)]
        self.claims.check(
            "everything shown is in stock", not gone, f"{len(page.items)} items looked up, {len(gone)} cannot be bought"
        )

    def neighbourhood(self, page: Page, touched: set[str]) -> list[Shown]:
        """A popular item she has not touched, with items like it: the one whose neighbours are least on her page."""
        shown = set(page.ids)
        categories = {item.category for item in page.items}
        candidates = [item for item in self.api.popular(POPULAR_POOL) if item.item_id not in shown | touched]
        candidates.sort(key=lambda item: item.category in categories)
        best: list[Shown] = candidates[:1]
        most = -1
        for item in candidates[:MOST_PROBES]:
            near = self.api.similar_items(item.item_id)
            fresh = sum(neighbour.item_id not in shown for neighbour in near)
            if fresh > most:
                most, best = fresh, [item, *near[: CLICKS - 1]]
        return best
