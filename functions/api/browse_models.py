"""What browsing gives."""

from __future__ import annotations

from pydantic import Field

from functions.api.models import Model


class CategoryNode(Model):
    """A category. The same name under two parents is two categories."""

    name: str = Field(examples=["Kitchen"])
    path: list[str] = Field(description="From the root", examples=[["Home", "Kitchen"]])
    items_count: int = Field(description="Available items in it or below it", examples=[120])
    children: list[CategoryNode]


class Categories(Model):
    """The shop's categories, by name."""

    categories: list[CategoryNode]
    items_count: int = Field(description="Available items of the shop", examples=[1970])
    uncategorised_count: int = Field(description="Those of them without a category", examples=[0])
