"""What the API says of erasures."""

from __future__ import annotations

from pydantic import Field

from functions.api.models import Model


class ErasureAccepted(Model):
    """The broker log has acknowledged the erasure in every partition."""

    receipt: str = Field(description="32 hexadecimal digits; whoever holds them may ask how far it has come")
    erased_at: str = Field(description="What took effect up to this instant is forgotten; what comes later is kept")


class ErasedStore(Model):
    """One store: done, or due."""

    store: str
    done_at: str | None = Field(description="Since when nothing of the user is there; null while it is not done")
    due_at: str | None = Field(description="When it will be done; null once it is")
    detail: str


class ErasureReport(Model):
    """How far an erasure has come, store by store."""

    receipt: str
    erased_at: str
    complete: bool = Field(description="Nothing is left to be done")
    stores: list[ErasedStore]
