"""What a user asks for, and how the API answers that."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

from functions.api.identifiers import PLAIN_ID
from functions.api.models import Model

Name = Annotated[str, Field(min_length=1, max_length=200)]
ItemName = Annotated[str, Field(min_length=1, max_length=128, json_schema_extra=PLAIN_ID)]
Price = Annotated[int, Field(ge=0, le=10**11)]


class PreferencesBody(Model):
    """All that she asks for: what is left out is no longer asked for. Names nobody uses do no harm."""

    model_config = ConfigDict(extra="forbid", strict=True)

    hidden_items: list[ItemName] = Field(default=[], max_length=500, examples=[["sku-00042"]])
    hidden_categories: list[Name] = Field(
        default=[], max_length=100, description="Names anywhere on an item's category path", examples=[["Kitchen"]]
    )
    hidden_brands: list[Name] = Field(default=[], max_length=100, examples=[["Northwind"]])
    favourite_categories: list[Name] = Field(
        default=[], max_length=100, description="Shown more, the first ones most; no promise", examples=[["Garden"]]
    )
    min_price_cents: Price | None = Field(default=None, description="Nothing cheaper", examples=[500])
    max_price_cents: Price | None = Field(default=None, description="Nothing dearer", examples=[20000])
    personalised: bool = Field(default=True, description="false: pages use nothing of what she did")


class PreferencesAccepted(Model):
    """The broker log has them: they are not lost, and count."""

    event_id: str = Field(description="Of the preferences_set event", examples=["0f9a1b2c3d4e5f600f9a1b2c3d4e5f60"])
    preferences: PreferencesBody
    everywhere: bool = Field(
        description="true: from the next request on, on every worker. false: the state is away; this worker knows "
        "them, the others will as soon as it is back"
    )


class UserPreferences(Model):
    """What a user asks for now."""

    user_id: str = Field(examples=["u-00007"])
    preferences: PreferencesBody
    set: bool = Field(description="false: she never asked for anything; these are the defaults")
    preferences_unavailable: bool = Field(description="true: the state is away, and these may be out of date")
