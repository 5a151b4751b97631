"""What a run did and found, as text and as JSON."""

from __future__ import annotations

from collections import Counter

import msgspec

from shared.ports import Verdict
from tests.chaos.points import NAMED, Point
from tests.chaos.scale import Scale


class Report(msgspec.Struct, kw_only=True):
    """`differences` counts all of them; `first` are the first ones as text."""

    seed: int
    mutant: str | None
    seconds: float
    clean_pass_seconds: float
    events: int
    verdicts: dict[str, int]
    late: int
    partitions: int
    kills: int
    kills_by_point: dict[str, int]
    unreached: list[str]
    restores: int
    batches_back: list[int]
    state_crashes: int
    state_losses: int
    compactions: int
    lost: int
    twice: int
    differences: int
    first: list[str]

    @property
    def passed(self) -> bool:
        """Whether the promise held and the run tried all it should have."""
        return not (self.differences or self.lost or self.twice or self.unreached)

    def text(self) -> str:
        """The report for people."""
        by_point = "\n".join(f"    {number:5d}  {point}" for point, number in self.kills_by_point.items())
        verdicts = ", ".join(f"{number:,} {verdict}" for verdict, number in self.verdicts.items())
        back = ", ".join(str(one) for one in self.batches_back)
        lines = [
            f"seed {self.seed}: {self.events:,} events on {self.partitions} partitions",
            f"  {verdicts}; {self.late:,} late",
            f"  {self.kills} kills:",
            by_point,
            f"  {self.restores} restores of an older copy of the state, {back} batches back",
            f"  {self.state_crashes} crashes of its server, {self.state_losses} losses rebuilt by backfill",
            f"  {self.compactions} compactions of the lake",
            f"  {self.seconds:.1f} s, of which the clean pass {self.clean_pass_seconds:.1f} s",
            *(f"  NOBODY DIED {name}: give the run more events and kills" for name in self.unreached),
            f"  {self.lost} lost, {self.twice} twice, {self.differences} differences",
            *(f"    {line}" for line in self.first),
        ]
        return "\n".join(lines)

    def json(self) -> bytes:
        """The report for machines."""
        return msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n"


def by_point(spent: Counter[Point]) -> dict[str, int]:
    """The kills by the points' names, in the points' order."""
    return {str(point): spent[point] for point in Point if spent[point]}


def unreached(spent: Counter[Point], scale: Scale) -> list[str]:
    """The named points nobody died at; a run of few kills need not reach them."""
    if not scale.thorough:
        return []
    return [name for name, points in NAMED.items() if not any(spent[point] for point in points)]


def by_verdict(verdicts: Counter[Verdict]) -> dict[str, int]:
    """The clean pass' verdicts by name."""
    return {str(verdict): number for verdict, number in sorted(verdicts.items())}
