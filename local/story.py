"""The story at the terminal: a customer, her list and why, three clicks and what moved, a stranger, and the numbers.

Everything it says of the system is a claim: computed from the API's answers while the story runs.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from local.casting import Customer
from local.claims import Claims
from local.page_comparison import (
    distinct_scores,
    in_ranker_order,
    mean_sources,
    moves,
    naming,
    percentile,
    personal,
    rank_mass,
    risen,
)
from local.shopper import Page, ShopApi, Shopper, Shown

PAGE: Final = 20
DEEP: Final = 100
CLICKS: Final = 3
SEEN_WITHIN_S: Final = 1.0
GIVE_UP_S: Final = 10.0
POPULAR_POOL: Final = 40
MOST_PROBES: Final = 12
MEASURED_PAGES: Final = 200


@dataclass
class Story:
    """One run: who speaks to which API, and what has been claimed and which releases answered so far."""

    console: Console
    api: ShopApi
    claims: Claims
    currency: str = "GBP"
    releases: set[str] = field(default_factory=set)

    def tell(self, heroine: Customer, others: Sequence[str]) -> None:
        """All chapters. Raises InfrastructureFault and UnexpectedAnswer when the API fails."""
        shopper = Shopper(self.api, heroine.user_id)
        stranger = Shopper(self.api, f"guest-{uuid.uuid4().hex[:12]}")
        profile = self.introduce(shopper, heroine)
        page = self.her_list(shopper)
        clicked = self.three_clicks(shopper, page, _touched(profile))
        self.a_stranger(stranger, page)
        self.around_an_item(clicked)
        self.latencies(others)

    def introduce(self, shopper: Shopper, heroine: Customer) -> dict[str, Any]:
        """Who she is."""
        self.heading(f"Who she is: {heroine.user_id}")
        profile = shopper.profile()
        likes = ", ".join(escape(str(entry["category"])) for entry in profile["top_categories"][:5])
        self.console.print(
            f"  {heroine.actions} actions so far, {heroine.purchases} of them purchases. She likes: {likes}"
        )
        for entry in profile["recent_history"][:5]:
            self.console.print(f"    {entry['event_type']:10} {escape(_title(entry))}")
        self.claims.check(
            "the shop knows her from its history, no night or session in between",
            bool(profile["recent_history"]),
            f"{len(profile['recent_history'])} actions in her profile",
        )
        return profile

    def her_list(self, shopper: Shopper) -> Page:
        """Her list and why."""
        self.heading("Her list, and why")
        page = self.look(shopper)
        deep = self.look(shopper, DEEP)
        self.show(page)
        self.claims.check("her page is full", len(page.items) == PAGE, f"{len(page.items)} of {PAGE} items")
        self.claims.check("nothing fell back", page.fallback is None, f"fallback: {page.fallback}")
        self.in_stock(page)
        scores = [item.score for item in page.items]
        different = distinct_scores(page.items)
        self.claims.check(
            "the ranker tells her items apart",
            different > len(scores) // 2,
            f"{different} different scores among {len(scores)}, {max(scores):.3f} to {min(scores):.3f}",
        )
        self.claims.check(
            "the best score comes first, except where variety moved an item", in_ranker_order(page.items), _ends(scores)
        )
        agreed, tail = mean_sources(deep.items[:PAGE]), mean_sources(deep.items[-PAGE:])
        self.claims.check(
            "what more sources agree on stands higher",
            agreed > tail,
            f"{agreed:.2f} sources an item on top, {tail:.2f} at ranks {len(deep.items) - PAGE + 1} to {len(deep.items)}",
        )
        own = personal(page.items)
        self.claims.check(
            "most of her page comes from what is known about her", len(own) > PAGE // 2, f"{len(own)} of {PAGE} items"
        )
        return page

    def three_clicks(self, shopper: Shopper, page: Page, touched: set[str]) -> list[Shown]:
        """Three clicks in one neighbourhood that is not on her page, and what moved."""
        self.heading("Three clicks")
        clicked = self.neighbourhood(page, touched)
        neighbours = self.neighbours_of(clicked) - set(page.ids)
        before = self.look(shopper, DEEP)
        for item in clicked:
            self.console.print(f"  she looks at [cyan]{escape(item.title)}[/]  [dim]{escape(item.category)}[/]")
            shopper.click(item.item_id)
        seen_s = self.wait_until_seen(shopper, clicked[-1].item_id)
        self.claims.check(
            "her clicks count within a second", seen_s <= SEEN_WITHIN_S, f"in her profile after {seen_s * 1000:.0f} ms"
        )
        after = self.look(shopper)
        deep = self.look(shopper, DEEP)
        self.show(after, page)
        known = sum(old is not None for _, old in moves(page, after))
        self.claims.check("the list changed", after.ids != page.ids, f"{PAGE - known} items are new on her page")
        higher = risen(before.ranks, deep.ranks, neighbours)
        mass = rank_mass(before.ranks, neighbours), rank_mass(deep.ranks, neighbours)
        self.claims.check(
            "neighbours of what she clicked rose",
            bool(higher) and mass[1] > mass[0],
            f"{len(higher)} of {len(neighbours)} stand higher; their rank mass went from {mass[0]:.2f} to {mass[1]:.2f}",
        )
        explained = naming(after.items, [item.title for item in clicked])
        self.claims.check(
            "her page says why: reasons name what she clicked", bool(explained), f"{len(explained)} of {PAGE} reasons"
        )
        self.in_stock(after)
        return clicked

    def a_stranger(self, stranger: Shopper, other: Page) -> None:
        """Somebody never seen, before and after the first click."""
        self.heading(f"A stranger: {stranger.user_id}")
        first = self.look(stranger)
        self.show(first, limit=10)
        own = personal(first.items)
        self.claims.check(
            "the stranger's first page is what is popular and new, nothing personal",
            len(first.items) == PAGE and not own,
            f"{len(first.items)} items, {len(own)} from a personal source",
        )
        shared = set(first.ids) & set(other.ids)
        self.claims.check(
            "it is another page than the customer's", len(shared) < PAGE // 2, f"{len(shared)} items in common"
        )
        chosen = first.items[PAGE // 4]
        self.console.print(f"  the stranger looks at [cyan]{escape(chosen.title)}[/]")
        stranger.click(chosen.item_id, first.recommendation_id)
        self.wait_until_seen(stranger, chosen.item_id)
        second = self.look(stranger)
        self.show(second, first, limit=10)
        now = personal(second.items)
        self.claims.check(
            "one click makes the page personal",
            second.ids != first.ids and len(now) > len(own),
            f"{len(now)} items come from a personal source now",
        )

    def around_an_item(self, clicked: Sequence[Shown]) -> None:
        """Similar items, and what is bought together."""
        self.heading("Around an item")
        item = clicked[0]
        similar = self.api.get("similar_items", item.item_id, limit=5)["items"]
        self.list_items(f"similar to {item.title}", similar)
        self.claims.check(
            "an item has similar items, itself not among them",
            bool(similar) and item.item_id not in {entry["item_id"] for entry in similar},
            f"{len(similar)} items",
        )
        for entry in self.popular(POPULAR_POOL):
            together = self.api.get("bought_together", entry.item_id, limit=5)["items"]
            if together:
                break
        else:
            together = []
        self.list_items(f"bought together with {entry.title}", together)
        self.claims.check(
            "partners are bought together more often than chance would have it",
            bool(together) and all(partner["lift"] > 1 for partner in together),
            ", ".join(f"lift {partner['lift']:.1f}" for partner in together),
        )

    def latencies(self, users: Sequence[str]) -> None:
        """How long the answers took, this client's time included."""
        self.heading("How long it takes")
        self.api.took_ms["recommend"].clear()
        for user in users[:MEASURED_PAGES]:
            self.look(Shopper(self.api, user))
        table = Table()
        for name in ("endpoint", "answers", "p50 ms", "p99 ms"):
            table.add_column(name, justify="left" if name == "endpoint" else "right")
        for endpoint, took in self.api.took_ms.items():
            if took:
                table.add_row(endpoint, str(len(took)), f"{percentile(took, 0.5):.1f}", f"{percentile(took, 0.99):.1f}")
        self.console.print(table)
        self.claims.check("every page came from one release", len(self.releases) == 1, ", ".join(sorted(self.releases)))

    # What the chapters are made of

    def heading(self, text: str) -> None:
        """A rule with the chapter's name."""
        self.console.print()
        self.console.rule(f"[bold]{escape(text)}", align="left")

    def look(self, shopper: Shopper, limit: int = PAGE) -> Page:
        """Her page, its release noted."""
        page = shopper.page(limit)
        self.releases.add(page.release)
        return page

    def show(self, page: Page, before: Page | None = None, limit: int = PAGE) -> None:
        """The page as a table; with `before`, where each item stood."""
        table = Table(box=None, pad_edge=True)
        table.add_column("", justify="right")
        if before is not None:
            table.add_column("was", justify="right")
        for name in ("item", "category", "price", "score", "why"):
            table.add_column(name, justify="right" if name in {"price", "score"} else "left", overflow="fold")
        places = dict(moves(before, page)) if before is not None else {}
        for item in page.items[:limit]:
            moved = [_moved(item.rank, places.get(item))] if before is not None else []
            price = "" if item.price_cents is None else f"{item.price_cents / 100:,.2f}"
            texts = (escape(item.title[:46]), escape(item.category), price, f"{item.score:.3f}", escape(item.reason))
            table.add_row(str(item.rank), *moved, *texts)
        self.console.print(table)

    def list_items(self, title: str, items: Sequence[dict[str, Any]]) -> None:
        """A few titles below a heading."""
        self.console.print(f"  {escape(title)}:")
        for item in items:
            lift = f"  [dim]lift {item['lift']:.1f}[/]" if "lift" in item else ""
            self.console.print(f"    {escape(_title(item))}{lift}")

    def in_stock(self, page: Page) -> None:
        """Claim that everything on a page can be bought."""
        gone = [
            item.title
            for item in page.items
            if (product := self.api.get("items", item.item_id))["stock"] == 0 or product["hidden"]
        ]
        self.claims.check(
            "everything shown is in stock", not gone, f"{len(page.items)} items looked up, {len(gone)} cannot be bought"
        )

    def popular(self, limit: int) -> list[Shown]:
        """What is popular now."""
        answer = self.api.get("popular", limit=limit)
        return [
            Shown(entry["item_id"], _title(entry), rank, 0.0, (), "", entry.get("category") or "", None)
            for rank, entry in enumerate(answer["items"], start=1)
        ]

    def neighbours_of(self, clicked: Sequence[Shown]) -> set[str]:
        """Similar items of all of them, without themselves."""
        found = {entry["item_id"] for item in clicked for entry in self.api.get("similar_items", item.item_id)["items"]}
        return found - {item.item_id for item in clicked}

    def neighbourhood(self, page: Page, touched: set[str]) -> list[Shown]:
        """A popular item she has not touched, with two items like it: the one whose neighbours are least on her page."""
        shown = set(page.ids)
        categories = {item.category for item in page.items}
        candidates = [item for item in self.popular(POPULAR_POOL) if item.item_id not in shown | touched]
        candidates.sort(key=lambda item: item.category in categories)
        best: list[Shown] = []
        most = -1
        for item in candidates[:MOST_PROBES]:
            near = [
                Shown(entry["item_id"], _title(entry), 0, 0.0, (), "", entry.get("category") or "", None)
                for entry in self.api.get("similar_items", item.item_id)["items"]
            ]
            fresh = sum(neighbour.item_id not in shown for neighbour in near)
            if len(near) >= CLICKS - 1 and fresh > most:
                most, best = fresh, [item, *near[: CLICKS - 1]]
        return best

    def wait_until_seen(self, shopper: Shopper, item_id: str) -> float:
        """Seconds until her profile holds the item; gives up after `GIVE_UP_S`."""
        began = time.monotonic()
        while time.monotonic() - began < GIVE_UP_S:
            if any(entry["item_id"] == item_id for entry in shopper.profile()["recent_history"]):
                break
            time.sleep(0.02)
        return time.monotonic() - began


def _touched(profile: dict[str, Any]) -> set[str]:
    return {entry["item_id"] for entry in profile["recent_history"]}


def _title(entry: dict[str, Any]) -> str:
    return str(entry.get("title") or entry["item_id"])


def _ends(scores: Sequence[float]) -> str:
    return f"first {scores[0]:.3f}, last {scores[-1]:.3f}" if scores else "no items"


def _moved(rank: int, before: int | None) -> str:
    if before is None:
        return "[green]new[/]"
    if before == rank:
        return f"[dim]{before}[/]"
    return f"[green]{before} ↑[/]" if before > rank else f"[red]{before} ↓[/]"
