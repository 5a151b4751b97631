"""The instants at which a page could have been asked for, with what the shopper then did: labels and test queries."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Final

import numpy as np

from shared.events import BEHAVIOUR, ItemId, UserId
from shared.features.aggregations import DAY_MS
from shared.features.replay import LoggedEvent
from shared.features.views import SESSION_GAP_MS
from shared.past_pages import Instant
from shared.ranking.grades import LABELS

SILENCE_MS: Final = DAY_MS
"""After this long without an event a session has ended, whatever its id says."""


def sessions(events: Iterable[LoggedEvent]) -> Iterator[list[LoggedEvent]]:
    """Behaviour events (given in log time) by user and session, each when it has ended: by session id, else at gaps.

    A session without id ends with 30 minutes of silence, one with an id with a day of it: what is held is about two
    days of events, however long the log is.
    """
    opened: dict[tuple[str, str], list[LoggedEvent]] = {}
    looked_at: int | None = None
    for logged in events:
        event, at = logged.event, logged.enqueued_at
        if event.event_type not in BEHAVIOUR or event.user_id is None:
            continue
        if looked_at is None or at - looked_at > SILENCE_MS:
            looked_at = at
            ended = [key for key, session in opened.items() if at - session[-1].enqueued_at > SILENCE_MS]
            yield from map(opened.pop, ended)
        key = (event.user_id, event.session_id or "")
        session = opened.get(key)
        longest_ms = SESSION_GAP_MS if event.session_id is None else SILENCE_MS
        if session is not None and at - session[-1].enqueued_at > longest_ms:
            yield opened.pop(key)
            session = None
        if session is None:
            session = opened[key] = []
        session.append(logged)
    yield from opened.values()


def instants_of(session: list[LoggedEvent], positive_types: Collection[str]) -> list[Instant]:
    """The session's start and each later positive event, where at least one positive still lies ahead."""
    found: list[Instant] = []
    seen_at: set[int] = set()
    for place, logged in enumerate(session):
        positive = logged.event.event_type in positive_types
        if (place and not positive) or logged.enqueued_at in seen_at:
            continue
        seen_at.add(logged.enqueued_at)
        ahead = [later for later in session if later.enqueued_at >= logged.enqueued_at]
        positives = frozenset(
            later.event.item_id
            for later in ahead
            if later.event.event_type in positive_types and later.event.item_id is not None
        )
        if positives:
            context = logged.event.context or {}
            found.append(
                Instant(
                    logged.enqueued_at - 1,
                    UserId(logged.event.user_id or ""),
                    _graded(ahead),
                    positives,
                    at_start=logged.enqueued_at == session[0].enqueued_at,
                    device=context.get("device"),
                    surface=context.get("surface"),
                )
            )
    return found


def sample(instants: list[Instant], limit: int, seed: int) -> list[Instant]:
    """At most `limit` of them, drawn without replacement, in order of time and user."""
    ordered = sorted(instants, key=lambda instant: (instant.as_of, instant.user_id))
    if len(ordered) <= limit:
        return ordered
    chosen = np.random.default_rng(seed).choice(len(ordered), size=limit, replace=False)
    return [ordered[place] for place in np.sort(chosen)]


def _graded(events: Iterable[LoggedEvent]) -> dict[ItemId, int]:
    grades: dict[ItemId, int] = {}
    for logged in events:
        item, grade = logged.event.item_id, LABELS.get(logged.event.event_type, 0)
        if item is not None and grade > grades.get(item, 0):
            grades[item] = grade
    return grades
