"""Broken processors, so that the suite is seen to fail: each lacks one of the three things that make once of twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from typing import Any

from shared.adapters import redis_scripts, redis_state
from shared.events import Event
from shared.features.shard import AcceptedIds
from shared.ingest.chunks import Gap
from shared.ingest.fold_chunk import AnyVersion
from shared.ingest.gaps import GapFiller
from shared.ports import LandingRow, LogRecord, Mark, Verdict


class Mutant(StrEnum):
    """What the consumers of a run lack."""

    MARK = "mark"
    RING = "ring"
    GAP = "gap"

    def break_process(self) -> None:
        """Break this process; only ever called in a child of the suite."""
        if self is Mutant.MARK:
            vars(redis_state)["COMMIT"] = redis_scripts.Script(_unguarded(redis_scripts.COMMIT.text))
        elif self is Mutant.GAP:
            setattr(GapFiller, "fill", _skip_silently)  # noqa: B010 - mypy refuses the plain assignment, rightly

    def version(self, version: AnyVersion) -> AnyVersion:
        """The state version as the mutant folds it."""
        if self is not Mutant.RING:
            return version

        def fold_user(shard: Any, event: Event, enqueued_at: int, sequence: int) -> bool:
            shard.accepted = AcceptedIds()
            return version.fold_user(shard, event, enqueued_at, sequence)

        return replace(version, fold_user=fold_user)


def _unguarded(script: str) -> str:
    """The commit without its guards: neither mark nor last id counts; rows that are in already stay as they are."""
    for guard in ("local function expect_mark(name, wanted)\n", "local function expect_below(name, first)\n"):
        assert script.count(guard) == 1, f"the commit script has no {guard!r}: teach the mutant what guards it now"
        script = script.replace(guard, f"{guard}  if true then return end\n")
    assert "redis.call('XADD'" in script, "the commit script appends otherwise: teach the mutant"
    return script.replace("redis.call('XADD'", "redis.pcall('XADD'")


def _skip_silently(
    filler: GapFiller, gap: Gap, mark: Mark | None, next_enqueued_at: int
) -> Sequence[LandingRow] | Sequence[LogRecord]:
    at = mark.enqueued_at if mark else next_enqueued_at
    row = LandingRow(filler._source, filler._partition, gap.first, at, Verdict.SKIPPED, last_sequence=gap.last)
    return [row]
