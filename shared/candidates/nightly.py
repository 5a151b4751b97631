"""The night's ALS list of a user: how it is made, and when it still speaks for her."""

from __future__ import annotations

import numpy as np

from shared.candidates.als import AlsSource, FactorOpinion
from shared.candidates.query import Query
from shared.candidates.ranked import Ranked
from shared.features.state import EntityState
from shared.releases.lists import NightlyRecord


def state_token(state: EntityState) -> tuple[int, int]:
    """(newest_at in epoch ms, views, carts and purchases ever): equal tokens, equal behaviour."""
    return state.newest_at, int(state.counts.sum())


def make_record(source: AlsSource, query: Query, limit: int) -> NightlyRecord:
    """What the source says now: at most `limit` items, best first, and the user's factor."""
    vector = source.factor(query)
    ranked = source.consider_for(vector, query).top(limit) if len(query.history.indexes) else Ranked.none()
    newest_at, actions_count = state_token(query.user.state)
    return NightlyRecord(newest_at, actions_count, ranked.indexes, ranked.scores, vector)


def record_holds(record: NightlyRecord, state: EntityState) -> bool:
    """Is her state still the one the record was made from?"""
    return (record.newest_at, record.actions_count) == state_token(state)


def opinion_of(record: NightlyRecord, source: AlsSource, query: Query) -> FactorOpinion:
    """The record's list less what may not be shown now, and its factor for what other sources put forward."""
    kept = query.eligible[record.indexes]
    ready = Ranked.seedless(record.indexes[kept], record.scores[kept])
    return source.consider_for(record.vector.astype(np.float32), query, ready)
