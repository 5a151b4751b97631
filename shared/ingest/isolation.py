"""Whose fault a fold that raised is: the event's, a state version's, or the deployment's."""

from __future__ import annotations

from collections.abc import Sequence

from shared.errors import BadDeployment, CorruptRecord
from shared.ingest.fold_chunk import FOLD_FAILED, AnyVersion, Entry, FoldFailed, fold_chunk
from shared.ingest.recorded_log import RecordedLog
from shared.ports import PartitionState, Verdict

FAILURE_WINDOW = 100
MOST_FAILURES = 5

Failure = FoldFailed | CorruptRecord


def failures_alone(
    entry: Entry, state: PartitionState, versions: Sequence[AnyVersion], *, with_log: bool
) -> dict[str, Failure]:
    """The versions that cannot fold this one entry, each with its error; nothing is written."""
    failed: dict[str, Failure] = {}
    for version in versions:
        try:
            fold_chunk([entry], state, [version], with_log=with_log)
        except (FoldFailed, CorruptRecord) as error:
            failed[version.name] = error
    return failed


def refuse_bad_deployment(partition: str, entry: Entry, error: FoldFailed, recorded: RecordedLog) -> None:
    """Raise BadDeployment when an event that was folded once, or too many events, cannot be folded; else do nothing."""
    sequence = entry.row.sequence
    if entry.standing:
        raise BadDeployment(
            f"{partition}: folding sequence {sequence}, which the log holds as {entry.row.verdict}, failed: {error}"
        ) from error
    first = max(0, sequence - FAILURE_WINDOW + 1)
    failed = 1 + sum(
        row.verdict is Verdict.DEAD and (row.reason or "").startswith(FOLD_FAILED)
        for row in (recorded.rows(first, sequence - 1) if sequence else ())
    )
    if failed > MOST_FAILURES:
        raise BadDeployment(
            f"{partition}: {failed} of {FAILURE_WINDOW} events up to sequence {sequence} could not be folded; the "
            f"last one: {error}. Deploy a version that can; nothing was lost"
        ) from error
