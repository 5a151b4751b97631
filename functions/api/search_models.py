"""What a search gives, as the API's documentation shows it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from functions.api.models import Category, Cents, Fallback, ItemIdText, Model, TitleText


class SearchItem(Model):
    """One place of the page."""

    item_id: ItemIdText
    title: TitleText
    rank: int = Field(description="Place on this page, from 1", examples=[1])
    score: float = Field(description="How well the words fit, over the best hit of the search", examples=[0.93])
    price_cents: Cents
    category: Category
    brand: str | None
    stock: int | None = Field(description="Units, null when not known", examples=[12])


class CategoryCount(Model):
    """A category, found anywhere on the path."""

    category: str = Field(examples=["Kitchen"])
    count: int = Field(examples=[17])


class PriceCount(Model):
    """Items from one price to another, both included."""

    min_price_cents: int = Field(examples=[1000])
    max_price_cents: int | None = Field(description="null: no end", examples=[1999])
    count: int = Field(examples=[9])


class StockCount(Model):
    """What is out of stock is never found, so these two are all."""

    in_stock: int = Field(description="Known to be in stock", examples=[40])
    unknown: int = Field(description="The shop does not say", examples=[0])


class SearchFacets(Model):
    """Counts over all hits: each under the other filters, but not under its own."""

    categories: list[CategoryCount] = Field(description="The 50 with the most hits, most first")
    prices: list[PriceCount]
    stock: StockCount


class SearchResults(Model):
    """One page of hits."""

    query: str = Field(examples=["enamel teapto"])
    items: list[SearchItem]
    total: int = Field(description="Hits that pass the filters, on all pages together", examples=[57])
    matched: Literal["all", "some", "none"] = Field(
        description="all: every word of the query fits every hit. some: no item has all words; these have as many as "
        "the best of them. none: nothing fits, or the query holds no word"
    )
    corrected: dict[str, str] = Field(
        description="Words that were searched in another spelling", examples=[{"teapto": "teapot"}]
    )
    did_you_mean: str | None = Field(description="The words with these corrections", examples=["enamel teapot"])
    facets: SearchFacets
    next_cursor: str | None = Field(
        description="Send it as `cursor` with the same search for the next page; null: this was the last page "
        "(one search shows 500 items at most)"
    )
    release: str = Field(examples=["20261123-0f9a1b2c"])
    recommendation_id: str | None = Field(
        description="With user_id: send it with the events that follow from this page",
        examples=["20261123-0f9a1b2c.0199aa3b4c5d7e6f8a9b0c1d2e3f4a5b"],
    )
    fallback: Fallback | None = Field(description="With user_id: why the order is not the shopper's own")
    preferences_unavailable: bool = Field(
        description="The user's preferences could not be read: what she hid may be among the items"
    )
