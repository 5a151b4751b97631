"""What the API takes and gives, as its documentation shows it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

ItemIdText = Annotated[str, Field(examples=["sku-00042"])]
TitleText = Annotated[str, Field(examples=["Enamel milk jug, cream"])]
Cents = Annotated[int, Field(description="Price in the currency's hundredth", examples=[1250])]
Category = Annotated[str, Field(description="Leaf category, empty when there is none", examples=["Kitchen"])]


class Model(BaseModel):
    """Base: no unknown fields, in either direction."""

    model_config = ConfigDict(extra="forbid")


PreferencesUnavailable = Annotated[
    bool,
    Field(
        description="true: what this user asked for cannot be read now, so it may not be obeyed here", examples=[False]
    ),
]


class Problem(BaseModel):
    """RFC 9457 problem details."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(examples=["urn:recommndr:problem:unknown_item"])
    title: str = Field(examples=["Not Found"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["the catalogue has no item 'sku-0'"])
    instance: str | None = Field(default=None, examples=["/items/sku-0"])
    request_id: str | None = Field(default=None, description="Also in the header X-Request-ID and in our log")


class Fallback(Model):
    """Why the answer is not what it would normally be."""

    cause: str = Field(
        description="new_user: nothing is known of her yet; not_personalised: she does not wish pages to use what she "
        "did; state_unavailable, lists_unavailable: what is stored cannot be read now; new_item: the item is younger "
        "than the release",
        examples=["new_user"],
    )


class SourceExplanation(Model):
    """What one candidate source said."""

    rank: int = Field(description="Place in the source's own list, from 1", examples=[3])
    score: float = Field(description="Score over the list's best, above 0 and at most 1", examples=[0.62])


class FeatureContribution(Model):
    """What one feature added to the score (TreeSHAP)."""

    feature: str = Field(description="docs/features.md tells what it means", examples=["pair_item_view_decayed_7d"])
    value: float | None = Field(description="null: not known", examples=[2.4])
    contribution: float = Field(examples=[0.71])


class ScoreExplanation(Model):
    """The item's score = expected + the contributions + rest."""

    expected: float = Field(description="The mean score of the rows the ranker learnt from", examples=[-0.12])
    contributions: list[FeatureContribution] = Field(description="The largest, at most 10")
    rest: float = Field(description="The sum of all other features' contributions", examples=[0.04])


class ItemExplanation(Model):
    """Only with explain=true."""

    sources: dict[str, SourceExplanation]
    propensity: float = Field(description="Probability of just this placement", examples=[1.0])
    score: ScoreExplanation | None = Field(
        description="null: the ranker did not score this page (a fallback), or its release cannot tell"
    )


class RecommendedItem(Model):
    """One place of the page."""

    item_id: ItemIdText
    title: TitleText
    rank: int = Field(examples=[1])
    score: float = Field(description="The ranker's score; comparable within this page only", examples=[1.83])
    sources: list[str] = Field(examples=[["cooccurrence", "als"]])
    reason: str = Field(examples=["because you viewed Enamel teapot, cream"])
    price_cents: Cents
    category: Category
    explanation: ItemExplanation | None = None


class RecommendationExplanation(Model):
    """Only with explain=true."""

    removed: dict[str, int] = Field(
        description="Items each rule took away", examples=[{"unavailable": 31, "bought": 2}]
    )
    removed_examples: dict[str, list[str]] = Field(
        description="Up to 20 of them by rule", examples=[{"bought": ["sku-00042", "sku-00007"]}]
    )


class Recommendations(Model):
    """A page of recommendations."""

    items: list[RecommendedItem]
    recommendation_id: str = Field(
        description="Send it with the events that follow from this page",
        examples=["r20261123.0f9a1b2c3d4e5f60"],
    )
    release: str = Field(examples=["r20261123"])
    as_of: str = Field(description="The instant of the page, UTC", examples=["2026-11-23T08:30:00.125Z"])
    candidates: int = Field(description="Items that were ranked for this page", examples=[312])
    fallback: Fallback | None
    preferences_unavailable: PreferencesUnavailable = False
    explanation: RecommendationExplanation | None = None


class RelatedItem(Model):
    """An item related to another."""

    item_id: ItemIdText
    title: TitleText
    rank: int = Field(examples=[1])
    score: float = Field(examples=[0.81])
    price_cents: Cents
    category: Category


class SimilarItems(Model):
    """Items like this one, best first."""

    item_id: ItemIdText
    items: list[RelatedItem]
    release: str
    fallback: Fallback | None
    preferences_unavailable: PreferencesUnavailable = False


class BoughtTogetherItem(RelatedItem):
    """An item bought with another. `support` counts the baskets that hold both."""

    support: int = Field(examples=[17])
    lift: float = Field(description="How much more often than by chance", examples=[3.4])
    confidence: float = Field(description="Share of the item's baskets that hold this one too", examples=[0.21])


class BoughtTogether(Model):
    """Items often bought in one basket with this one, best first."""

    item_id: ItemIdText
    items: list[BoughtTogetherItem]
    release: str
    preferences_unavailable: PreferencesUnavailable = False


class Item(Model):
    """A product as it stands now."""

    item_id: ItemIdText
    title: TitleText
    description: str
    categories: list[str] = Field(description="Path from root to leaf", examples=[["Home", "Kitchen"]])
    category: Category
    brand: str | None
    price_cents: Cents
    stock: int | None = Field(description="Units, null when not known", examples=[12])
    hidden: bool
    available: bool = Field(description="May be shown: not hidden, not known to be out of stock")
    arrived_at: str | None = Field(description="UTC", examples=["2026-10-01T00:00:00.000Z"])
    attributes: dict[str, Any]


class Items(Model):
    """One page of the catalogue."""

    items: list[Item]
    page: int | None = Field(description="null where a cursor chose the page", examples=[1])
    pages: int = Field(examples=[40])
    total: int = Field(description="Available items that fit", examples=[1970])
    next_cursor: str | None = Field(description="Of the page after this one; null on the last", examples=["k6JpZM..."])
    preferences_unavailable: PreferencesUnavailable = False


class PopularItems(Model):
    """What is popular now, recency-weighted."""

    items: list[RelatedItem]
    release: str
    preferences_unavailable: PreferencesUnavailable = False


class PastAction(Model):
    """One thing the user did."""

    event_type: str = Field(examples=["view"])
    occurred_at: str = Field(examples=["2026-11-23T08:29:58.000Z"])
    item_id: str | None = Field(examples=["sku-00042"])
    title: str | None = Field(examples=["Enamel milk jug, cream"])


class CategoryShare(Model):
    """A category and its share of the user's recent taste."""

    category: str = Field(examples=["Kitchen"])
    share: float = Field(examples=[0.4])


class UserProfile(Model):
    """What the shop knows of a user."""

    user_id: str = Field(examples=["u-00007"])
    known: bool = Field(description="false: no event of this user has arrived yet")
    as_of: str = Field(examples=["2026-11-23T08:30:00.125Z"])
    features: dict[str, float] = Field(examples=[{"user_view_decayed_1d": 2.4}])
    recent_history: list[PastAction] = Field(description="Newest first")
    top_categories: list[CategoryShare]
    preferences: dict[str, Any] | None
    release: str


class EventOutcome(Model):
    """What became of one posted event."""

    index: int = Field(description="Its place in the request, from 0", examples=[0])
    event_id: str | None = Field(description="null when it could not be read", examples=["e-1"])
    outcome: str = Field(description="accepted or rejected", examples=["accepted"])
    reason: str | None = Field(default=None, examples=["purchase needs item_id"])


class EventsAccepted(Model):
    """The broker log has acknowledged every accepted event."""

    accepted: int = Field(examples=[1])
    rejected: int = Field(examples=[0])
    outcomes: list[EventOutcome]


class HealthCheck(Model):
    """One thing that has to work."""

    name: str = Field(examples=["feature_state"])
    ok: bool
    detail: str = Field(examples=["Redis answers"])


class Live(Model):
    """The process answers."""

    status: str = Field(examples=["alive"])


class Ready(Model):
    """Every check passed."""

    status: str = Field(examples=["ready"])
    checks: list[HealthCheck]
