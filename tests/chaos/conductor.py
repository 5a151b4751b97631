"""One run: publish, keep two workers dying and coming back, break the state, and wait until all is quiet."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from functools import partial

from redis import Redis

from functions.releases.item_follower import FollowedItems, ItemFollower
from local.embedded import EmbeddedServers
from shared.adapters.redis_log import RedisCheckpoints
from shared.adapters.redis_shards import RedisShardReader
from shared.adapters.redis_state import RedisStateStore
from shared.errors import StateUnavailable
from shared.events import EventSource
from shared.ingest.marks import sequence_of_mark
from shared.ingest.state_versions import CURRENT_VERSION
from shared.ports import Mark
from tests.chaos.crew import Crew, End
from tests.chaos.deaths import Deaths
from tests.chaos.faults import Fault, Planned, StateFolder, plan
from tests.chaos.points import BACKFILL, REFILL, Point
from tests.chaos.publisher import Publisher
from tests.chaos.rebuild import backfill, compact_night, warm_up
from tests.chaos.scale import SECRET, SOURCE, Trial, say
from tests.chaos.worker import Life, Worker

_TICK_S = 0.01
_LOOK_EVERY_S = 0.05
_PATIENCE_S = 10.0
"""A worker whose planned death does not come within this time is killed where it stands."""

_IDLE_S = 0.7
"""Workers that have nothing to do for so long, since the next events wait for a kill, are killed where they stand."""

_STUCK_S = 30.0
_REBUILD_S = 300.0
_FOLLOW_FROM = 0.4
_MOST_FAULTS = 10
"""Of one kind."""


@dataclass(slots=True)
class Progress:
    """Where the run stands: records in the state and handed over, by partition."""

    marks: list[Mark | None]
    checkpoints: list[int]
    kills: int = 0
    faults: int = 0

    @property
    def folded(self) -> int:
        """Records in the state."""
        return sum(sequence_of_mark(mark) + 1 for mark in self.marks)

    @property
    def handed(self) -> int:
        """Records that the checkpoints say were handed over."""
        return sum(one + 1 for one in self.checkpoints)


class Conductor:
    """Holds all the threads, and has none itself: its children are forked."""

    def __init__(
        self, trial: Trial, servers: EmbeddedServers, publisher: Publisher, clients: tuple[Redis, Redis]
    ) -> None:
        """`clients` are those of the state and of the log."""
        assert servers.state is not None, "the run starts both servers"
        self._trial = trial
        self._scale = scale = trial.scale
        self._publisher = publisher
        self._servers = servers
        self.crew = Crew(trial.place.folder / "children.log", self._forget_servers)
        self.deaths = Deaths(scale, trial.seed)
        self.state_folder = StateFolder(servers.state, trial.place.folder / "copies")
        self.faults: Counter[Fault] = Counter()
        self.accidents: list[str] = []
        self.followed: FollowedItems | None = None
        self._planned = plan(scale)
        self._store = RedisStateStore(clients[0], SECRET)
        self._reader = RedisShardReader(clients[0], SECRET, CURRENT_VERSION.name)
        self._checkpoints = RedisCheckpoints(clients[1], SOURCE)
        self._progress = Progress([None] * scale.partitions, [-1] * scale.partitions)
        self._rebuilding = 0
        self._looked_at = self._said_at = self._moved_at = self._started_at = time.monotonic()

    def run(self) -> None:
        """Until everything published is in, all kills are spent and all faults have happened, or nothing moves."""
        while not self._finished():
            self._publish()
            self._raise_workers()
            for end in self.crew.bury():
                self._record(end)
            self._look()
            self._break()
            limit = _REBUILD_S if self._rebuilding else _STUCK_S
            if time.monotonic() - self._moved_at > limit:
                self.accidents.append(f"nothing moved for {limit:.0f} s: {self._progress}")
                break
            time.sleep(_TICK_S)
        self.crew.kill(*self.crew.children)
        if self.followed is not None:
            self.followed.follow()

    def _finished(self) -> bool:
        if not self._publisher.done or self._planned or self._rebuilding or self.deaths.done < self.deaths.budget:
            return False
        return self._progress.folded == len(self._publisher.records) and not self._once_more()

    def _once_more(self) -> bool:
        """Plan another restore or loss when nobody died while one was mended; that is a matter of luck."""
        for points, fault in ((REFILL, Fault.RESTORE), (BACKFILL, Fault.LOSS)):
            reached = any(self.deaths.spent[point] for point in points)
            if self._scale.thorough and not reached and 0 < self.faults[fault] < _MOST_FAULTS:
                self._planned.append(Planned(0, fault, 3))
                self.deaths.missed += 3
        return bool(self._planned)

    @property
    def _streaming(self) -> bool:
        """Whether there are events to die over."""
        return self._progress.folded < 0.9 * self._scale.events

    def _publish(self) -> None:
        """Keep the log ahead of its consumers, but not of the kills: these are spread over the whole stream."""
        published, scale = len(self._publisher.records), self._scale
        share = (self.deaths.done + self.deaths.kept_back + 6) / max(1, self.deaths.budget)
        taken = max(self._progress.folded, self._progress.handed)  # a stale worker may have set a checkpoint back
        if self._publisher.done or published - taken > scale.backlog:
            return
        if published < share * scale.events + scale.append:
            self._publisher.publish()

    def _raise_workers(self) -> None:
        events_left = max(0, self._scale.events - self._progress.folded)
        eighth = self._progress.folded * 8 // self._scale.events
        pair = eighth % 2 == 0 or self._scale.tiny
        working = {child.name for child in self.crew.children}
        self._doom_idlers()
        for name in ("first worker", "second worker")[: 2 if pair else 1]:
            if name in working:
                continue
            life = self.deaths.next_life(events_left, pair=pair)
            if life.point is not None:
                self.deaths.promised += 1
            after = None if life.point is None else _PATIENCE_S
            if life.point is Point.RANDOM:
                after = self.deaths.cut_after_s()
            self.crew.spawn(name, partial(self._work, life), life.point, kill_after_s=after)

    def _doom_idlers(self) -> None:
        """Kills are left and nobody moves: who waits for a death that needs events, or for none at all, dies now."""
        now = time.monotonic()
        starving = self._progress.folded >= len(self._publisher.records)
        if self._rebuilding or not starving or now - self._moved_at < _IDLE_S:
            return
        for child in self.crew.children:
            if child.planned is not None:
                child.kill_at = now
            elif self.deaths.left > self.deaths.kept_back:
                child.planned, child.kill_at = Point.RANDOM, now
                self.deaths.promised += 1

    def _work(self, life: Life, witness: int) -> None:
        if self._trial.mutant is not None:
            self._trial.mutant.break_process()
        Worker(self._trial, life, witness).run()

    def _record(self, end: End) -> None:
        child = end.child
        if child.planned is not None:
            self.deaths.promised -= 1
        if end.point is not None:
            self.deaths.spent[end.point] += 1
            if child.planned not in {None, end.point}:
                assert child.planned is not None
                self.deaths.again(child.planned, streaming=self._streaming)
        elif end.status or child.name.endswith("worker"):
            self.accidents.append(f"a {child.name} ended by itself with status {end.status}; see children.log")
        if child.name == "backfill":
            self._after_backfill(end)
        elif child.name == "compaction":
            self._rebuilding -= 1

    def _look(self) -> None:
        """Every now and then: marks, checkpoints, the follower's feed, a line of progress."""
        now = time.monotonic()
        if now - self._looked_at < _LOOK_EVERY_S:
            return
        self._looked_at = now
        partitions, name = range(self._scale.partitions), CURRENT_VERSION.name
        try:
            marks = [min(self._store.marks(SOURCE, one, name), key=sequence_of_mark) for one in partitions]
            if self.followed is not None:
                self.followed.follow()
            elif self._progress.folded >= _FOLLOW_FROM * self._scale.events:
                source = EventSource(SOURCE, (self._scale.partitions,))
                self.followed = ItemFollower(self._reader).items_of([source])
        except StateUnavailable:
            return  # the server is being started again
        checkpoints = [self._checkpoints.get(one) for one in partitions]
        progress = Progress(marks, checkpoints, self.deaths.done, self.faults.total())
        if progress != self._progress:
            self._progress, self._moved_at = progress, now
        if now - self._said_at > 2.0:
            self._said_at = now
            say(
                f"{now - self._started_at:6.1f} s  {self._progress.folded:,} of {self._scale.events:,} events, "
                f"{self.deaths.done} of {self.deaths.budget} kills, {self.faults[Fault.RESTORE]} restores"
            )

    def _break(self) -> None:
        """The next fault, when its time has come."""
        if not self._planned or self._rebuilding:
            return
        due = self._planned[0]
        self.deaths.kept_back = sum(one.kills for one in self._planned)
        folded, handed, batch = self._progress.folded, self._progress.handed, self._scale.batch
        if folded < due.events:
            return
        if due.fault is Fault.COPY and None in self._progress.marks:
            return
        behind = min(folded, handed)  # the checkpoint must be ahead of the copy as well
        if due.fault is Fault.RESTORE and not self.state_folder.has_old_copy(behind, batch):
            return
        self._planned.pop(0)
        self.deaths.kept_back -= due.kills
        self.faults[due.fault] += 1
        self._happen(due, folded, behind)
        self._progress = Progress([None] * self._scale.partitions, self._progress.checkpoints)  # until the next look

    def _happen(self, due: Planned, folded: int, behind: int) -> None:
        folder = self.state_folder
        if due.fault is Fault.COPY:
            folder.copy(folded)
        elif due.fault is Fault.CRASH:
            folder.crash()
        elif due.fault is Fault.RESTORE:
            self._restore(due, behind)
        elif due.fault is Fault.LOSS:
            warm_up()
            folder.lose()
            self._rebuilding = min(due.kills, max(0, self.deaths.left)) + 1
            self._start_backfill()
        else:
            self._rebuilding = 1
            kill = self.deaths.left > 0
            self.deaths.promised += kill
            calls = 1 + self.faults[due.fault] % 3
            body = partial(compact_night, self._scale, self._trial.place, calls if kill else -1)
            self.crew.spawn("compaction", body, Point.COMPACTION if kill else None)

    def _restore(self, due: Planned, behind: int) -> None:
        """Most often the workers fall with the server; else they live on with what they remember of its state."""
        if self.faults[Fault.RESTORE] % 3 and self.deaths.left > 0:
            for end in self.crew.kill(*self.crew.children):
                self._record(end)
            self.deaths.refills = due.kills - 1
        self.state_folder.restore(behind, self._scale.batch)

    def _start_backfill(self) -> None:
        point, calls = None, 0
        if self._rebuilding > 1:
            point, calls = self.deaths.backfill_death()
            self.deaths.promised += 1
        self.crew.spawn("backfill", partial(backfill, self._trial.place, point, calls), point)

    def _after_backfill(self, end: End) -> None:
        """A backfill that was killed is run again, until one comes to its end."""
        if end.point is None:
            self._rebuilding = 0
            if end.child.planned is not None:
                self.deaths.again(end.child.planned, streaming=False)
            return
        self._rebuilding = max(1, self._rebuilding - 1)
        self._start_backfill()

    def _forget_servers(self) -> None:
        """In a child: the servers end when their keepers' pipes close, so no child may hold one open."""
        for server in (self._servers.state, self._servers.log):
            process = server._process if server is not None else None
            if process is not None and process.stdin is not None:
                process.stdin.close()
