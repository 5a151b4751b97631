"""From rows in order to what is known and what is asked: the splits of published protocols.

A position is a pseudo-time: all queries of a phase share one instant, and ages count back from it, so that the newest
event of everybody lies one step before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batch.evaluation.hold_out import hold_out
from batch.evaluation.phases import Ages, Known, Numbers, Phase, Queries, Split, run_starts
from shared.errors import ConfigurationError
from shared.features.aggregations import DAY_MS, MINUTE_MS

_USERS, _ITEMS, _ORDERS = 1, 2, 3
"""Streams of a seed's random numbers: two draws from one stream would be the same draw."""

LATER_SHARE: Final = 0.1
"""Of the training sessions, in order of appearance, the last share becomes labels."""


@dataclass(frozen=True, slots=True)
class OrderedRows:
    """Columns of a file: string ids of the users or sessions, int64[n] places within them, string ids of the items."""

    owner: pa.Array
    position: Ages
    item: pa.Array


@dataclass(frozen=True, slots=True)
class Pairs:
    """Who has what: string ids of users and items."""

    user: pa.Array
    item: pa.Array


@dataclass(frozen=True, slots=True)
class AskedPrefixes:
    """Test rows of sessions: int64[q] lengths of the prefixes, their items one after the other, and the next items."""

    lengths: Ages
    items: pa.Array
    target: pa.Array


@dataclass(frozen=True, slots=True)
class Numbered:
    """Ids as dense numbers that tell nothing of the ids or of the order in which they came."""

    names: tuple[str, ...]
    codes: tuple[Numbers, ...]
    """One array for each array given to `number`."""


def number(stream: tuple[int, int], *columns: pa.Array) -> Numbered:
    """Number the distinct ids of string arrays: in a seeded random order of their first appearance.

    The same rows with other ids get the same numbers, so ties that are broken by number never lean on an id; and a
    file that is ordered by time leaks no time into the numbers.
    """
    encoded = pa.chunked_array(list(columns), type=pa.large_string()).combine_chunks().dictionary_encode()
    found = encoded.dictionary.to_pylist()
    place = np.random.default_rng(stream).permutation(len(found)).astype(np.int32)
    codes = place[np.asarray(encoded.indices)]
    names = [""] * len(found)
    for appearance, name in enumerate(found):
        names[place[appearance]] = name
    bounds = np.cumsum([len(column) for column in columns])[:-1]
    return Numbered(tuple(names), tuple(np.split(codes, bounds)))


def leave_last_out(rows: OrderedRows, extra_items: pa.Array, *, seed: int, refit: bool) -> Split:
    """The last item of each user is the test, the one before it the label.

    Args:
        rows: of equal positions of a user the earlier row comes first.
        extra_items: ids of items that nobody touched, which belong to the catalogue all the same.
        seed: of the numbers.
        refit: sources of the test phase know all but the test item; otherwise they stay fitted without the last two.

    Users with one row only are left out, those with two have a test and no label.
    """
    users = number((seed, _USERS), rows.owner)
    order = np.lexsort((np.arange(len(rows.position)), rows.position, users.codes[0]))
    from_end = _from_end(users.codes[0][order])
    # Items that are known come first: a test item moves no number of theirs.
    known_first = np.concatenate([order[from_end > 0], order[from_end == 0]])
    items = number((seed, _ITEMS), rows.item.take(pa.array(known_first)), extra_items)
    item_of = np.empty(len(order), np.int32)
    item_of[known_first] = items.codes[0]
    user, item = users.codes[0][order], item_of[order]

    label = Phase(_known(user, item, from_end, from_end >= 2), _queries(user, item, from_end, asked=1))
    known = _known(user, item, from_end, from_end >= 1) if refit else label.known
    test = Phase(known, _queries(user, item, from_end, asked=0))
    return Split(label, test, len(users.names), len(items.names), items.names, masked=True)


def given_split(
    train: Pairs,
    test: Pairs,
    extra_items: pa.Array,
    *,
    seed: int,
    refit: bool,
    cohesion: float = 0.0,
) -> Split:
    """Pairs without order, train and test as they were published; labels are a fifth of each user's train pairs.

    All pairs lie at one instant, in a seeded order within a user. A pair that is given twice counts once. `cohesion` is
    that of `batch.evaluation.hold_out`.
    """
    users = number((seed, _USERS), train.user, test.user)
    items = number((seed, _ITEMS), train.item, extra_items, test.item)
    generator = np.random.default_rng((seed, _ORDERS))
    pairs = _distinct(users.codes[0], items.codes[0])
    pairs = pairs[generator.permutation(len(pairs))]
    pairs = pairs[np.argsort(pairs[:, 0], kind="stable")]
    held = hold_out(pairs, cohesion, generator)
    if not held.any():
        raise ConfigurationError("no user has enough pairs to hold some out; the train file needs 3 pairs of a user")
    label = Phase(_unordered(pairs[~held]), _pair_queries(pairs[~held], pairs[held]))
    asked = _pair_queries(pairs, _distinct(users.codes[1], items.codes[2]))
    known = _unordered(pairs) if refit else label.known
    return Split(label, Phase(known, asked), len(users.names), len(items.names), items.names, masked=True)


def next_in_session(
    rows: OrderedRows, asked: AskedPrefixes, extra_items: pa.Array, *, seed: int, refit: bool, spread_days: float
) -> Split:
    """Whole training sessions, and test rows that are each a prefix of a session and its next item.

    Labels are prefixes, as long as those of the test or longer, of the last sessions to appear in the file. Sessions
    are spread over `spread_days` pseudo-days in the order in which they appear, steps within one are minutes: the
    prefix is the current session.
    """
    if not len(asked.target) or int(asked.lengths.min(initial=1)) < 1:
        raise ConfigurationError("every test row needs a prefix of at least one item")
    encoded = rows.owner.dictionary_encode()
    appeared = np.asarray(encoded.indices).astype(np.int32)
    order = np.lexsort((np.arange(len(appeared)), rows.position, appeared))
    items = number((seed, _ITEMS), rows.item, extra_items, asked.items, asked.target)
    session, item = appeared[order], items.codes[0][order]
    count = len(encoded.dictionary)
    later = session >= count - max(1, round(LATER_SHARE * count))
    if later.all():
        raise ConfigurationError("one training session is too few: the last ones are held out to learn from")
    label = Phase(
        _spread(session[~later], item[~later], spread_days),
        _prefixes(session[later], item[later], int(asked.lengths.min())),
    )
    starts = np.concatenate([[0], np.cumsum(asked.lengths)])
    prefix, target = items.codes[2], items.codes[3]
    queries = Queries(
        count + _same_session(prefix, starts, target),
        prefix,
        _minutes(starts),
        starts,
        target,
        np.arange(len(target) + 1, dtype=np.int64),
    )
    known = _spread(session, item, spread_days) if refit else label.known
    return Split(label, Phase(known, queries), count, len(items.names), items.names, masked=False)


def next_basket(
    rows: OrderedRows, future: NDArray[np.bool_], extra_items: pa.Array, *, seed: int, refit: bool
) -> Split:
    """Baskets by position: the first one that `future` (bool[n]) marks is the test, the last before it the label."""
    if not future.any():
        raise ConfigurationError("no row belongs to the future part; there is nothing to test on")
    users = number((seed, _USERS), rows.owner)
    known_first = np.argsort(future, kind="stable")
    items = number((seed, _ITEMS), rows.item.take(pa.array(known_first)), extra_items)
    item_of = np.empty(len(future), np.int32)
    item_of[known_first] = items.codes[0]
    shuffled = np.random.default_rng((seed, _ORDERS)).permutation(len(future))  # a basket has no order
    order = shuffled[np.lexsort((rows.position[shuffled], future[shuffled], users.codes[0][shuffled]))]
    user, item, later, basket = users.codes[0][order], item_of[order], future[order], rows.position[order]
    step = np.cumsum(np.r_[True, (np.diff(user) != 0) | (np.diff(basket) != 0) | np.diff(later)]).astype(np.int64)
    next_step = np.full(len(users.names), np.iinfo(np.int64).max)
    np.minimum.at(next_step, user[later], step[later])
    kept = ~later | (step == next_step[user])
    user, item, later, step = user[kept], item[kept], later[kept], step[kept]
    newest = np.zeros(len(users.names), np.int64)
    np.maximum.at(newest, user, np.where(later, 0, step))
    # Steps of a user's history follow each other without holes: 0 is the next basket, 1 the last before it.
    back = np.where(later, 0, 1 + newest[user] - step)
    label = Phase(_known(user, item, back, back >= 2), _queries(user, item, back, asked=1))
    known = _known(user, item, back, back >= 1) if refit else label.known
    test = Phase(known, _queries(user, item, back, asked=0))
    return Split(label, test, len(users.names), len(items.names), items.names, masked=False)


def _from_end(user: Numbers) -> Ages:
    """Of rows ordered by user: 0 for a user's last row, 1 for the one before it."""
    starts = run_starts(user)
    return np.asarray(np.repeat(starts[1:], np.diff(starts)) - 1 - np.arange(len(user)), np.int64)


def _known(user: Numbers, item: Numbers, back: Ages, chosen: NDArray[np.bool_]) -> Known:
    """The chosen rows (ordered by user, oldest first), aged so that each user's newest is one day old."""
    user, item, back = user[chosen], item[chosen], back[chosen]
    newest = np.full(int(user.max(initial=-1)) + 1, np.iinfo(np.int64).max)
    np.minimum.at(newest, user, back)
    steps = back - newest[user] + 1
    return Known(user, item, steps * DAY_MS, steps.astype(np.int32))


def _queries(user: Numbers, item: Numbers, back: Ages, *, asked: int) -> Queries:
    """Per user the rows that lie `asked` steps from the end as positives, and all older ones as history."""
    positive, history = back == asked, back > asked
    able = np.intersect1d(user[positive], user[history])
    positive &= np.isin(user, able)
    history &= np.isin(user, able)
    return Queries(
        able.astype(np.int32),
        item[history],
        (back[history] - asked) * DAY_MS,
        run_starts(user[history]),
        item[positive],
        run_starts(user[positive]),
    )


def _distinct(user: Numbers, item: Numbers) -> Numbers:
    """int32[k, 2]: the distinct pairs, in order of first appearance."""
    _, first = np.unique(user.astype(np.int64) << 32 | item, return_index=True)
    first.sort()
    return np.stack([user[first], item[first]], axis=1)


def _unordered(pairs: Numbers) -> Known:
    rows = np.arange(len(pairs), dtype=np.int32)
    return Known(pairs[:, 0].copy(), pairs[:, 1].copy(), np.full(len(pairs), DAY_MS, np.int64), rows)


def _pair_queries(known: Numbers, asked: Numbers) -> Queries:
    """Histories from the known pairs (ordered by user), positives from the others; who lacks either is left out."""
    asked = asked[np.argsort(asked[:, 0], kind="stable")]
    able = np.intersect1d(known[:, 0], asked[:, 0])
    known, asked = known[np.isin(known[:, 0], able)], asked[np.isin(asked[:, 0], able)]
    return Queries(
        able.astype(np.int32),
        known[:, 1].copy(),
        np.full(len(known), DAY_MS, np.int64),
        run_starts(known[:, 0]),
        asked[:, 1].copy(),
        run_starts(asked[:, 0]),
    )


def _spread(session: Numbers, item: Numbers, days: float) -> Known:
    """Sessions as users of their own; the one that appeared last ended a day ago, the first `days` before that."""
    _, place = np.unique(session, return_inverse=True)
    count = int(place.max(initial=0)) + 1
    ended = DAY_MS + np.round((count - 1 - place) * (days * DAY_MS / max(count, 1))).astype(np.int64)
    return Known(session, item, ended + _from_end(session) * MINUTE_MS, np.zeros(len(session), np.int32))


def _prefixes(session: Numbers, item: Numbers, shortest: int) -> Queries:
    """Every prefix of at least `shortest` items of sessions whose rows lie together, with the item after it."""
    starts = run_starts(session)
    place = np.arange(len(session)) - np.repeat(starts[:-1], np.diff(starts))
    targets = np.flatnonzero(place >= shortest)
    lengths = place[targets]
    ends = np.concatenate([[0], np.cumsum(lengths)])
    rows = np.arange(ends[-1]) - np.repeat(ends[:-1], lengths) + np.repeat(targets - lengths, lengths)
    return Queries(
        session[targets], item[rows], _minutes(ends), ends, item[targets], np.arange(len(targets) + 1, dtype=np.int64)
    )


def _minutes(starts: Ages) -> Ages:
    """Ages of ragged histories, oldest first: the newest a minute old, each older one a minute more."""
    lengths = np.diff(starts)
    return (np.repeat(starts[1:], lengths) - np.arange(starts[-1])) * MINUTE_MS


def _same_session(history: Numbers, starts: Ages, target: Numbers) -> Numbers:
    """int32[q]: rows that follow each other and are prefixes of one session have equal numbers.

    A row continues the one before when either prefix, with its target, begins the other's.
    """
    bounds = starts.tolist()
    sequences = [
        [*history[low:high].tolist(), int(last)]
        for low, high, last in zip(bounds[:-1], bounds[1:], target.tolist(), strict=True)
    ]
    joined = np.zeros(len(target), dtype=np.bool_)
    for row in range(1, len(sequences)):
        longer, shorter = sequences[row - 1], sequences[row]
        if len(longer) < len(shorter):
            longer, shorter = shorter, longer
        joined[row] = longer[: len(shorter)] == shorter and len(longer) > len(shorter)
    return (np.cumsum(~joined) - 1).astype(np.int32)
