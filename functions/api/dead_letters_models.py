"""What the routes of dead letters take and give."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema

from functions.api.models import Model

MOST_REPLAYED = 200
LETTER_ID = r"^[a-z0-9][a-z0-9-]{0,62}/[0-9]{1,9}/[0-9]{1,18}$"

LetterIdText = Annotated[str, Field(pattern=LETTER_ID, examples=["live-1/0/4711"])]
SourceName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", examples=["live-1"])]
PartitionNumber = Annotated[int, Field(ge=0, le=999_999_999, examples=[0])]


def _instant(said: object) -> datetime:
    """A number is none, though it could be read as seconds."""
    if not isinstance(said, str):
        raise ValueError("must be an ISO 8601 text, such as 2026-11-23T08:30:00Z")  # noqa: TRY004 - pydantic's contract
    return datetime.fromisoformat(said)


Instant = Annotated[
    datetime,
    BeforeValidator(_instant),
    WithJsonSchema({"type": "string", "pattern": r"^\d{4}-?(\d{2}|W)", "examples": ["2026-11-23T08:30:00Z"]}),
]
ReasonPart = Annotated[str, Field(min_length=1, max_length=200, examples=["ZeroDivisionError"])]


class Letter(Model):
    """One event that could not be folded."""

    id: str = Field(description="<source>/<partition>/<sequence>", examples=["live-1/0/4711"])
    enqueued_at: str = Field(examples=["2026-11-23T08:30:00.125Z"])
    reason: str | None = Field(examples=["ZeroDivisionError: division by zero"])
    event_id: str | None = Field(description="null: its bytes are no event", examples=["0f9a1b2c"])
    event_type: str | None = Field(examples=["view"])
    replay: Literal["none", "not_possible", "begun", "done"] = Field(
        description="begun: it was published or is about to be, which is not known; replay it again"
    )
    bytes: int = Field(examples=[212])


class Letters(Model):
    """A page of them, by coordinates."""

    letters: list[Letter]
    total: int = Field(description="How many fit, on all pages", examples=[4])
    next_after: str | None = Field(description="`after` of the next page; null on the last", examples=["live-1/0/4711"])


class WholeLetter(Letter):
    """With its bytes; it may hold personal data."""

    body: str = Field(description="As text, or as hexadecimal digits where it is no UTF-8")
    hexadecimal: bool
    replay_begun_at: str | None
    replay_finished_at: str | None


class ReplayRequest(Model):
    """Which to replay: ids, or filters that must all hold, or all."""

    model_config = ConfigDict(extra="forbid", strict=True)

    ids: list[LetterIdText] = Field(default_factory=list, max_length=MOST_REPLAYED)
    source: SourceName | None = None
    partition: PartitionNumber | None = None
    reason: ReasonPart | None = None
    since: Instant | None = Field(default=None, description="Only from this instant on; without an offset it is UTC")
    all: bool = Field(default=False, description="All of them, where no id and no filter is given")
    dry_run: bool = Field(default=False, description="Say which, and publish nothing")


class LetterOutcome(Model):
    """What became of one letter."""

    id: str = Field(examples=["live-1/0/4711"])
    outcome: Literal["published", "in_the_log", "done_before", "no_event", "unacknowledged", "would_be_replayed"] = (
        Field(
            description="in_the_log: its event id was accepted since, so it was not published again; done_before: "
            "replayed earlier; no_event: its bytes are none"
        )
    )


class ReplayReport(Model):
    """What became of the letters that were taken."""

    outcomes: list[LetterOutcome]
    remaining: int = Field(
        description=f"How many more fit: at most {MOST_REPLAYED} that were not replayed yet are taken a request; send "
        "it again", examples=[0],
    )  # fmt: skip
