"""Rules hold on every path: a state machine changes the shop at random and looks at every answer of two workers.

Catalogue changes, preferences, behaviour, erasures, requests on all paths, and a Redis that is away now and then.
What an answer may show is decided by a model (`rules_truth`) that knows nothing of the code. RULES_STEPS sets how many
steps it takes; from 1,000 on they are drawn anew each time. RULES_SHRINK makes a failure short, which takes minutes.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import tempfile
import uuid
from collections.abc import Mapping
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from local.embedded import EmbeddedServers
from shared.adapters.redis_connection import connect
from shared.events import id_hash, to_ms
from tests.integration.api_shop import (
    CATEGORIES,
    PER_CATEGORY,
    ApiShop,
    another_worker,
    behaviour,
    full_update,
    item_id,
    open_shop,
)
from tests.integration.rules_draws import (
    CATEGORY_NAMES,
    LOOKS_A_STEP,
    PATHS,
    POPULAR,
    USERS,
    brands,
    items,
    maybe_categories,
    maybe_users,
    patches,
    paths,
    prices,
    some_items,
    stocks,
    users,
    wishes,
    workers,
)
from tests.integration.rules_truth import Tally, Truth
from tests.integration.unreachable import Reach

EVERYDAY_STEPS = 300
STEPS = int(os.environ.get("RULES_STEPS", EVERYDAY_STEPS))
STEPS_A_RUN = 60
COUNT = CATEGORIES * PER_CATEGORY
CIRCUIT_S = 5.0
"""Longer than any circuit stays open."""
DAY = timedelta(days=1)


class RulesEverywhere(RuleBasedStateMachine):
    """One shop and two workers of it, without background threads: their steps are rules as well."""

    def __init__(self, servers: EmbeddedServers, tally: Tally) -> None:
        super().__init__()
        self.tally = tally
        self.truth = Truth()
        self.reach = Reach(servers.state_url)
        self.stack = ExitStack()
        folder = Path(tempfile.mkdtemp(prefix="recommndr-rules-"))
        self.stack.callback(shutil.rmtree, folder, ignore_errors=True)
        for url in (servers.state_url, servers.log_url):
            with closing(connect(url, timeout_ms=5000)) as client:
                client.flushall()
        began_at = to_ms(datetime.now(UTC))
        # Who is cut off is refused at once; a machine that is busy must not look like a Redis that is away.
        opened = open_shop(servers.state_url, servers.log_url, folder, REDIS_TIMEOUT_MS="10000")
        shop = self.stack.enter_context(opened)
        self.shops: tuple[ApiShop, ApiShop] = (shop, self.stack.enter_context(another_worker(shop)))
        for index in range(COUNT):
            self.truth.change(item_id(index), (began_at, 0), full_update(index)["changes"])
        self.truth.fold()
        for worker in (0, 1):
            self._background(worker)
        looks = list(itertools.product((0, 1), (*USERS, None), PATHS))
        random.Random(1).shuffle(looks)
        self.turns = itertools.cycle(looks)

    @initialize(wanted=st.tuples(wishes, wishes, wishes))
    def begin(self, wanted: tuple[dict[str, Any], ...]) -> None:
        for place, (user, one) in enumerate(zip(USERS, wanted, strict=True)):
            self.act(place % 2, user, POPULAR[place], "view")
            self.put_preferences(0, user, one)
        self.fold_and_follow(True, 0)

    def teardown(self) -> None:
        self.reach.mend()
        self.stack.close()

    # The catalogue

    @rule(worker=workers, item=items, changes=patches, late=st.booleans())
    def patch(self, worker: int, item: str, changes: dict[str, Any], late: bool) -> None:
        self._write("PATCH", worker, item, changes, late=late)

    @rule(worker=workers, item=items, stock=stocks, price_cents=prices, categories=paths, brand=brands)
    def put(self, worker: int, item: str, **said: Any) -> None:
        said["title"] = "Product put"
        changes = {**said, "description": "", "hidden": False, "deleted": False}
        self._write("PUT", worker, item, said, changes)

    @rule(worker=workers, item=items, late=st.booleans())
    def delete(self, worker: int, item: str, late: bool) -> None:
        self._write("DELETE", worker, item, None, {"deleted": True}, late=late)

    @rule(worker=workers, entries=st.lists(st.tuples(items, patches), min_size=1, max_size=4, unique_by=lambda e: e[0]))
    def batch(self, worker: int, entries: list[tuple[str, dict[str, Any]]]) -> None:
        key, before = uuid.uuid4().hex, datetime.now(UTC)
        sent = [
            {"item_id": item, "occurred_at": before.isoformat(), "deleted": False, **changes}
            for item, changes in entries
        ]
        answer = self._call(worker, "POST", "/items:batch", json={"items": sent}, headers={"Idempotency-Key": key})
        assert answer.status_code == 202, answer.text
        for place, (item, changes) in enumerate(entries):
            order = (to_ms(before), id_hash(f"{key}.{place}"))
            self.truth.change(item, order, {"deleted": False, **changes})

    def _write(
        self,
        method: str,
        worker: int,
        item: str,
        body: dict[str, Any] | None,
        changes: Mapping[str, Any] | None = None,
        *,
        late: bool = False,
    ) -> None:
        query = {"occurred_at": (datetime.now(UTC) - DAY).isoformat()} if late else None
        answer = self._call(worker, method, f"/items/{item}", json=body, params=query)
        assert answer.status_code == 202, answer.text
        told = answer.json()
        order = (to_ms(datetime.fromisoformat(told["occurred_at"])), id_hash(told["event_id"]))
        self.truth.change(item, order, changes or body or {})

    # Shoppers

    @rule(worker=workers, user=users, item=st.sampled_from(POPULAR), kind=st.sampled_from(["view", "cart", "purchase"]))
    def act(self, worker: int, user: str, item: str, kind: str) -> None:
        event = {**behaviour(user, 0, kind), "item_id": item}
        assert self._call(worker, "POST", "/events", json=[event]).status_code == 202
        self.truth.act(user, item, bought=kind == "purchase")

    @rule(worker=workers, user=users, wanted=wishes)
    def put_preferences(self, worker: int, user: str, wanted: dict[str, Any]) -> None:
        answer = self._call(worker, "PUT", f"/user_profile/{user}/preferences", json=wanted)
        if wanted.get("min_price_cents", 0) > wanted.get("max_price_cents", 10**9):
            assert answer.status_code == 422
            return
        assert answer.status_code == 202, answer.text
        everywhere = answer.json()["everywhere"]
        assert everywhere == (not self.reach.is_cut)
        self.truth.wish(user, worker, wanted, late=False, everywhere=everywhere)
        for one in (0, 1):
            self.recommend(one, user, None, [], None)

    @rule(worker=workers, user=users, wanted=wishes, late=st.booleans())
    def post_preferences(self, worker: int, user: str, wanted: dict[str, Any], late: bool) -> None:
        if wanted.get("min_price_cents", 0) > wanted.get("max_price_cents", 10**9):
            return
        at = datetime.now(UTC) - (DAY if late else timedelta())
        event = {
            "event_id": uuid.uuid4().hex, "event_type": "preferences_set", "occurred_at": at.isoformat(),
            "user_id": user, "changes": wanted,
        }  # fmt: skip
        assert self._call(worker, "POST", "/events", json=[event]).status_code == 202
        # A wish dated back says nothing certain while Redis is away: the answer is flagged then, or a newer one holds.
        self.truth.wish(user, worker, wanted, late=late, everywhere=not self.reach.is_cut)

    @rule(worker=workers, user=users)
    def erase(self, worker: int, user: str) -> None:
        answer = self._call(worker, "DELETE", f"/user_profile/{user}")
        assert answer.status_code == 202, answer.text
        self.truth.erase(user, worker, everywhere=not self.reach.is_cut)
        for one in (0, 1):
            self.profile(one, user)

    # What happens by itself

    @precondition(lambda self: not self.reach.is_cut)
    @rule(both=st.booleans(), worker=workers)
    def fold_and_follow(self, both: bool, worker: int) -> None:
        self.shops[0].pump()
        self.truth.fold()
        for one in (0, 1) if both else (worker,):
            self._background(one)

    @precondition(lambda self: not self.reach.is_cut)
    @rule(worker=workers)
    def background(self, worker: int) -> None:
        self._background(worker)

    @precondition(lambda self: not self.reach.is_cut)
    @rule()
    def redis_goes(self) -> None:
        """Not within a quarter of a second of the last wish: each worker has written what waited, then heard of it."""
        for worker in (0, 1, 0, 1):
            self._background(worker)
        self.reach.cut()
        self.tally.away += 1

    @precondition(lambda self: self.reach.is_cut)
    @rule()
    def redis_comes_back(self) -> None:
        self.reach.mend()
        self.shops[0].seconds.ahead += CIRCUIT_S

    @rule(seconds=st.sampled_from([1, 30, 61]))
    def time_passes(self, seconds: int) -> None:
        self.shops[0].seconds.ahead += seconds

    def _background(self, worker: int) -> None:
        services = self.shops[worker].services
        services.keeper.keep_up()
        self.truth.keep_up(worker)
        services.follower.follow()
        services.refresh()
        self.truth.follow(worker)

    # Every path

    @rule(worker=workers, user=users, category=maybe_categories, exclude=some_items, context=st.none() | items)
    def recommend(self, worker: int, user: str, category: str | None, exclude: list[str], context: str | None) -> None:
        query = {"limit": 100, "category": category, "exclude": ",".join(exclude), "context_item": context}
        page = self._look(worker, f"/recommend/{user}", user, query, unless=context)
        if page is not None:
            shown = {one["item_id"] for one in page["items"]}
            assert not shown & {*exclude, context}, "excluded, or the page's own"
            told = self.truth.users[user]
            if told.erased and told.knows_erasure(worker) and not told.acted:
                assert page["fallback"] is not None, "personal, though she was erased"
            if page["fallback"] is None or page["fallback"]["cause"] == "lists_unavailable":
                assert not shown & told.bought, "bought within the window"

    @rule(worker=workers, user=maybe_users, category=maybe_categories)
    def popular(self, worker: int, user: str | None, category: str | None) -> None:
        self._look(worker, "/popular", user, {"limit": 100, "category": category})

    @rule(worker=workers, user=maybe_users, kind=st.sampled_from(["similar_items", "bought_together"]), item=items)
    def related(self, worker: int, user: str | None, kind: str, item: str) -> None:
        page = self._look(worker, f"/{kind}/{item}", user, {"limit": 100}, unless=item, lists=True)
        assert page is None or item not in {one["item_id"] for one in page["items"]}

    @rule(
        worker=workers,
        user=maybe_users,
        category=maybe_categories,
        sort=st.sampled_from(["id", "newest", "popularity", "price", "-price"]),
    )
    def browse(self, worker: int, user: str | None, category: str | None, sort: str) -> None:
        self._look(worker, "/items", user, {"category": category, "limit": 100, "sort": sort})

    @rule(
        worker=workers,
        user=maybe_users,
        category=maybe_categories,
        words=st.sampled_from(["product", "produkt", "Product put", "brand"]),
    )
    def search(self, worker: int, user: str | None, category: str | None, words: str) -> None:
        self._look(worker, "/search", user, {"q": words, "category": category, "limit": 100})

    @rule(worker=workers, user=users)
    def profile(self, worker: int, user: str) -> None:
        answer = self._call(worker, "GET", f"/user_profile/{user}")
        assert answer.status_code in ({503} if self.reach.is_cut else {200}), answer.text
        told = self.truth.users[user]
        if answer.status_code == 200 and told.erased and told.knows_erasure(worker):
            remembered = {one["item_id"] for one in answer.json()["recent_history"]} - {None}
            assert remembered <= told.acted, "of before she was erased"
            assert told.acted or not answer.json()["features"]["user_view_count_ever"]

    @invariant()
    def every_path_in_turn(self) -> None:
        """Whatever the rules drawn look at, each path is looked at by each worker for each user again and again."""
        for _ in range(LOOKS_A_STEP):
            worker, user, path = next(self.turns)
            if path == "recommend":
                self.recommend(worker, user or USERS[0], None, [], None)
            elif path == "popular":
                self.popular(worker, user, None)
            elif path == "items":
                self.browse(worker, user, CATEGORY_NAMES[0], "popularity")
            elif path == "search":
                self.search(worker, user, None, "product")
            elif path == "user_profile":
                self.profile(worker, user or USERS[0])
            else:
                self.related(worker, user, path, POPULAR[3])

    def _look(
        self,
        worker: int,
        path: str,
        user: str | None,
        query: Mapping[str, Any],
        *,
        unless: str | None = None,
        lists: bool = False,
    ) -> Any:
        """An answer's page, looked through; None where there is none: of an unknown item, or lists out of reach."""
        named = {} if user is None or user in path else {"user_id": user}
        asked = {name: value for name, value in {**query, **named}.items() if value not in (None, "")}
        answer = self._call(worker, "GET", path, params=asked)
        if answer.status_code == 404:
            known = self.truth.seen[worker].get(unless or "")
            assert known is None or {"deleted", "not described"} & set(known.objections()), answer.text
            return None
        if answer.status_code == 503 and lists and self.reach.is_cut:
            return None
        assert answer.status_code == 200, answer.text
        page = answer.json()
        shown = [one["item_id"] for one in page["items"]]
        assert len(shown) == len(set(shown))
        self.tally.items += len(shown)
        assert not (found := self.truth.objections(worker, shown)), found
        if query.get("category") is not None:
            wanted = {one: self.truth.seen[worker][one].value("categories", []) for one in shown}
            assert all(query["category"] in path for path in wanted.values()), wanted
        if user is None:
            assert not page["preferences_unavailable"]
        elif page["preferences_unavailable"]:
            assert self.reach.is_cut, "it can be read"
            self.tally.flagged += 1
        else:
            assert not (found := self.truth.unwanted(worker, user, shown)), found
            self.tally.obeyed += bool(self.truth.users[user].wants(worker))
        return page

    def _call(self, worker: int, method: str, path: str, **options: Any) -> Any:
        self.tally.steps += 1
        answer = self.shops[worker].client.request(method, path, **options)
        self.tally.answers[f"{method} {'/'.join(path.split('/')[:2])} {answer.status_code}"] += 1
        return answer


@pytest.mark.timeout(120 + STEPS)
def test_nothing_that_may_not_be_shown_is_shown(own_servers: EmbeddedServers) -> None:
    tally = Tally()
    chosen = settings(
        max_examples=max(1, STEPS // STEPS_A_RUN),
        stateful_step_count=STEPS_A_RUN,
        deadline=None,
        database=None,
        derandomize=STEPS < 1000,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, *((Phase.shrink,) if "RULES_SHRINK" in os.environ else ())),
        print_blob=True,
    )

    class Run(RulesEverywhere):
        def __init__(self) -> None:
            super().__init__(own_servers, tally)

    run_state_machine_as_test(Run, settings=chosen)
    print(  # noqa: T201 - with -s, and in the report of a failure
        f"{tally.steps} calls, {tally.items} items shown, {tally.obeyed} answers under wishes, "
        f"{tally.flagged} flagged, {tally.away} outages: {dict(sorted(tally.answers.items()))}"
    )
    assert tally.items > STEPS
    assert tally.obeyed > STEPS // 20
    assert tally.away
