"""A page as it was shown, looked up by its id."""

from __future__ import annotations

from pydantic import Field

from functions.api.models import ItemExplanation, ItemIdText, Model


class RecordedRequest(Model):
    """What was asked for."""

    limit: int = Field(examples=[20])
    category: str | None
    context_item: str | None
    exclude: list[str]
    device: str | None = Field(examples=["mobile"])
    surface: str | None = Field(examples=["home"])


class RecordedItem(Model):
    """One place of the page."""

    item_id: ItemIdText
    rank: int = Field(examples=[1])
    score: float = Field(examples=[1.83])
    sources: list[str] = Field(examples=[["cooccurrence", "als"]])
    reason: str = Field(description="As the shopper read it", examples=["because you viewed Enamel teapot, cream"])
    explanation: ItemExplanation


class RecordedRecommendation(Model):
    """What was shown, and why."""

    recommendation_id: str = Field(examples=["r20261123.019ab2c3d4e57f60a1b2c3d4e5f60718"])
    user_id: str = Field(examples=["u-00007"])
    release: str = Field(examples=["r20261123"])
    as_of: str = Field(description="The instant of the page, UTC", examples=["2026-11-23T08:30:00.125Z"])
    request: RecordedRequest
    fallback: str | None = Field(examples=["new_user"])
    candidates: int = Field(description="Items that were ranked for this page", examples=[312])
    removed: dict[str, int] = Field(description="Items each rule took away", examples=[{"unavailable": 31}])
    items: list[RecordedItem]
