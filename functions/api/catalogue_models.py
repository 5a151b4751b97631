"""What writing to the catalogue takes and gives."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final, Self

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from functions.addressable_ids import check_addressable
from functions.api.identifiers import ADDRESSABLE_ID
from functions.api.models import ItemIdText, Model
from functions.catalogue.catalogue_writer import instant_of
from shared.errors import InvalidIdentifier

MOST_PRICE: Final = 10**11
MOST_STOCK: Final = 10**9


def _check_instant(text: str) -> str:
    instant_of(text)
    return text


def _check_item_id(item_id: str) -> str:
    try:
        return check_addressable(item_id, "item_id")
    except InvalidIdentifier as error:
        raise ValueError(str(error)) from error


Instant = Annotated[
    str,
    AfterValidator(_check_instant),
    Field(json_schema_extra={"format": "date-time"}, examples=["2026-11-23T08:30:00.000Z"], max_length=40),
]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Title = Annotated[str, Field(min_length=1, max_length=4000, examples=["Enamel milk jug, cream"])]
Description = Annotated[str, Field(max_length=4000)]
Path = Annotated[list[Name], Field(max_length=10, description="Path from root to leaf", examples=[["Home", "Kitchen"]])]
Price = Annotated[int, Field(ge=0, le=MOST_PRICE, description="Price in the currency's hundredth", examples=[1250])]
Stock = Annotated[int | None, Field(ge=0, le=MOST_STOCK, description="Units; null where not known, which may be shown")]
ArrivedAt = Annotated[Instant, Field(description="When the shop first offered it; a new item arrives now")]
Number = Annotated[float, Field(allow_inf_nan=False)]
Attributes = Annotated[dict[Name, str | bool | Number], Field(max_length=50, examples=[{"colour": "cream"}])]


_UNSAID: Final[Any] = None
"""Of a field left out: never looked at, for `model_fields_set` tells what was sent."""


def _without_defaults(schema: dict[str, Any]) -> None:
    """A client made from the document must not send what its user did not say."""
    for said in schema["properties"].values():
        said.pop("default", None)
    schema["minProperties"] = len(schema.get("required", ())) + 1


class StrictModel(Model):
    """Base of what is taken: "1" is no number, and 1 is no text."""

    model_config = ConfigDict(extra="forbid", strict=True)


class WholeItem(StrictModel):
    """A whole product: what is left out is reset, but for `arrived_at`."""

    title: Title
    price_cents: Price
    description: Description = ""
    categories: Path = Field(default_factory=list)
    brand: Name | None = None
    stock: Stock = None
    hidden: bool = False
    arrived_at: ArrivedAt | None = None
    attributes: Attributes = Field(default_factory=dict)

    def fields(self) -> dict[str, Any]:
        """The changes of an `item_updated` event: every field, so that nothing of before is left."""
        said = self.model_dump()
        if said["arrived_at"] is None:
            del said["arrived_at"]
        return {**said, "deleted": False}


class ItemPatch(StrictModel):
    """What is to change of a product; a field left out stays as it is. At least one is needed."""

    model_config = ConfigDict(json_schema_extra=_without_defaults)

    title: Title = _UNSAID
    description: Description = _UNSAID
    categories: Path = _UNSAID
    brand: Name | None = _UNSAID
    price_cents: Price = _UNSAID
    stock: Stock = _UNSAID
    hidden: bool = _UNSAID
    arrived_at: ArrivedAt = _UNSAID
    attributes: Attributes = _UNSAID

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.fields():
            raise ValueError("a change names at least one field")
        return self

    def fields(self) -> dict[str, Any]:
        """The changes of an `item_updated` event: what was sent, and nothing else."""
        return self.model_dump(include=self.model_fields_set - {"item_id", "occurred_at"})


class BatchEntry(ItemPatch):
    """One item of a batch: made if it is new, else changed in what is given."""

    item_id: Annotated[ItemIdText, AfterValidator(_check_item_id), Field(json_schema_extra=ADDRESSABLE_ID)]
    deleted: bool = _UNSAID
    occurred_at: Instant = _UNSAID

    def instant(self) -> datetime | None:
        """Its own instant, None for now."""
        return instant_of(self.occurred_at) if "occurred_at" in self.model_fields_set else None


class ItemWritten(Model):
    """The broker log has acknowledged the change; every worker shows it within a second."""

    item_id: ItemIdText
    event_id: str = Field(description="Of the item_updated event", examples=["0f9a1b2c3d4e5f60"])
    occurred_at: str = Field(
        description="From when it counts: per field the newest wins", examples=["2026-11-23T08:30:00.125Z"]
    )


class ItemOutcome(Model):
    """What became of one item of a batch."""

    index: int = Field(description="Its place in the request, from 0", examples=[0])
    item_id: str | None = Field(description="null when it could not be read", examples=["sku-00042"])
    event_id: str | None = Field(description="Of the item_updated event, null when rejected")
    outcome: str = Field(description="accepted or rejected", examples=["accepted"])
    reason: str | None = Field(default=None, examples=["price_cents: Input should be a valid integer"])


class ItemsTaken(Model):
    """The broker log has acknowledged every accepted change."""

    accepted: int = Field(examples=[1])
    rejected: int = Field(examples=[0])
    outcomes: list[ItemOutcome]
