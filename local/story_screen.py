"""How the story looks on the terminal; what a shop wrote is never read as markup."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from local.page_comparison import moves, percentile
from local.shopper import Page

TITLE_WIDTH = 46


@dataclass(frozen=True)
class Screen:
    """Prints pages, lists and times."""

    console: Console

    def chapter(self, text: str) -> None:
        """A rule with the chapter's name."""
        self.console.print()
        self.console.rule(f"[bold]{escape(text)}", align="left")

    def say(self, text: str, dim: str = "") -> None:
        """A line, and perhaps something less important behind it."""
        self.console.print(f"  {escape(text)}" + (f"  [dim]{escape(dim)}[/]" if dim else ""), soft_wrap=True)

    def page(self, page: Page, before: Page | None = None, limit: int | None = None) -> None:
        """The page as a table; with `before`, where each item stood."""
        table = Table(box=None)
        table.add_column("", justify="right")
        if before is not None:
            table.add_column("was", justify="right")
        for name in ("item", "category", "price", "score", "why"):
            table.add_column(name, justify="right" if name in {"price", "score"} else "left", overflow="fold")
        places = dict(moves(before, page)) if before is not None else {}
        for item in page.items[:limit]:
            moved = [] if before is None else [_moved(item.rank, places[item])]
            price = "" if item.price_cents is None else f"{item.price_cents / 100:,.2f}"
            texts = (escape(item.title[:TITLE_WIDTH]), escape(item.category), price)
            table.add_row(str(item.rank), *moved, *texts, f"{item.score:.3f}", escape(item.reason))
        self.console.print(table)

    def items(self, title: str, items: Sequence[Mapping[str, Any]]) -> None:
        """A few titles below a line."""
        self.say(f"{title}:")
        for item in items:
            self.say(f"  {title_of(item)}", f"lift {item['lift']:.1f}" if "lift" in item else "")

    def times(self, took_ms: Mapping[str, Sequence[float]]) -> None:
        """Percentiles by endpoint."""
        table = Table(box=None)
        for name in ("endpoint", "answers", "p50 ms", "p99 ms"):
            table.add_column(name, justify="left" if name == "endpoint" else "right")
        for endpoint, took in took_ms.items():
            if took:
                table.add_row(endpoint, str(len(took)), f"{percentile(took, 0.5):.1f}", f"{percentile(took, 0.99):.1f}")
        self.console.print(table)


def title_of(entry: Mapping[str, Any]) -> str:
    """An item's title, or its id where it has none."""
    return str(entry.get("title") or entry["item_id"])


def _moved(rank: int, before: int | None) -> str:
    if before is None:
        return "[green]new[/]"
    if before == rank:
        return f"[dim]{before}[/]"
    return f"[green]{before} ↑[/]" if before > rank else f"[red]{before} ↓[/]"
