"""The answer to a request that carries many writes, each with an outcome of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from fastapi.responses import Response

from functions.api.catalogue_models import ItemOutcome, ItemsTaken
from functions.api.models import EventOutcome, EventsAccepted
from functions.api.parameters import answer
from functions.api.problems import problem
from functions.event_intake import Fate


def answer_events(told: Sequence[EventOutcome]) -> Response:
    """Of POST /events."""
    accepted, rejected = _counts(told)
    return _refusal("events", "/events", told) or answer(
        EventsAccepted(accepted=accepted, rejected=rejected, outcomes=list(told)), 202
    )


def answer_items(told: Sequence[ItemOutcome]) -> Response:
    """Of POST /items:batch."""
    accepted, rejected = _counts(told)
    return _refusal("items", "/items:batch", told) or answer(
        ItemsTaken(accepted=accepted, rejected=rejected, outcomes=list(told)), 202
    )


def _refusal(noun: str, instance: str, told: Sequence[EventOutcome | ItemOutcome]) -> Response | None:
    """The problem when the broker log did not acknowledge all of them, or none is valid."""
    accepted, rejected = _counts(told)
    lost = len(told) - accepted - rejected
    outcomes = [one.model_dump(exclude_none=True) for one in told]
    if lost:
        text = f"the broker log did not acknowledge {lost} of {len(told)} {noun}; send those again with the same ids"
        return problem(
            503, text, kind="partly_acknowledged", instance=instance, accepted=accepted, rejected=rejected,
            unacknowledged=lost, outcomes=outcomes,
        )  # fmt: skip
    if not accepted:
        text = f"none of the {len(told)} {noun} is valid; outcomes tell why"
        return problem(422, text, kind=f"invalid_{noun}", instance=instance, outcomes=outcomes)
    return None


def _counts(told: Sequence[EventOutcome | ItemOutcome]) -> tuple[int, int]:
    """(accepted, rejected)."""
    counts = Counter(one.outcome for one in told)
    return counts[Fate.ACCEPTED.value], counts[Fate.REJECTED.value]
