"""What the routes of releases give."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from functions.api.models import Model

ReleaseIdText = Field(examples=["20261120-0787cb6e"])


class ReleaseSummary(Model):
    """One release and whether it serves."""

    release_id: str = ReleaseIdText
    role: Literal["active", "rollback", "none"] = Field(description="rollback: what a rollback would take")
    weight: float = Field(description="Its share in the allocation", examples=[1.0])
    lists: Literal["kept", "expiring", "none"] = Field(description="Its nightly lists in Redis")
    events_until: str | None = Field(
        description="Its newest event; null when its manifest cannot be read", examples=["2026-11-20T02:51:41.000Z"]
    )
    items: int | None = Field(examples=[29905])
    users: int | None = Field(examples=[2174])
    fault: str | None = Field(description="Why its manifest cannot be read")


class Releases(Model):
    """Every finished release."""

    allocation_version: int = Field(description="0 before the first publish", examples=[7])
    releases: list[ReleaseSummary]


class ReleaseDetail(ReleaseSummary):
    """One release whole."""

    usable: bool = Field(description="Its files and lists are whole: it may be activated")
    unusable_because: str | None
    allocation_version: int = Field(examples=[7])
    shop_name: str | None
    time_zone: str | None
    currency: str | None
    state_version: str | None
    schema_digest: str | None
    mlflow_run_id: str | None
    evaluation: dict[str, Any] = Field(description="As its manifest holds it")
    files: dict[str, str] = Field(description="Name to SHA-256")


class ReleaseChange(Model):
    """What moved."""

    release_id: str = ReleaseIdText
    before: str | None = Field(description="What had the traffic", examples=["20261119-52c1a7d0"])
    allocation_version: int = Field(examples=[8])
    retired: list[str] = Field(description="Releases whose lists expire within a week from now")
    mlflow: str = Field(
        description="What became of MLflow's alias",
        examples=["the alias champion stays where it is until the next night"],
    )
