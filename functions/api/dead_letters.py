"""GET /dead_letters, GET /dead_letters/{source}/{partition}/{sequence}, and replaying one or many."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import APIRouter, Path, Query
from fastapi.responses import Response

from functions.api import access
from functions.api.dead_letters_models import (
    LETTER_ID,
    MOST_REPLAYED,
    Instant,
    Letter,
    LetterOutcome,
    Letters,
    PartitionNumber,
    ReasonPart,
    ReplayReport,
    ReplayRequest,
    SourceName,
    WholeLetter,
)
from functions.api.parameters import answer, iso, problems
from functions.api.problems import problem
from functions.api.worker import Worker, WorkerServices
from functions.dead_letter_desk import Asked
from shared.events import to_ms

if TYPE_CHECKING:
    from shared.ingest.dead_letters import DeadLetter

router = APIRouter(tags=["operation"])

_REPLAY: Final = {"-": "none", "not possible": "not_possible"}
_UNACKNOWLEDGED: Final = "unacknowledged"

SourcePath = Annotated[SourceName, Path(description="The event source")]
PartitionPath = Annotated[PartitionNumber, Path()]
SequencePath = Annotated[int, Path(ge=0, le=10**18 - 1, examples=[4711])]
Since = Annotated[
    Instant | None, Query(description="Only those that arrived at this instant or later; without an offset it is UTC")
]


@router.get("/dead_letters", dependencies=[access.OPERATOR], response_model=Letters, responses=problems(422, 503))
def list_dead_letters(
    worker: Worker,
    *,
    source: Annotated[SourceName | None, Query(description="Only of this event source")] = None,
    partition: Annotated[PartitionNumber | None, Query(description="Only of this partition")] = None,
    reason: Annotated[
        ReasonPart | None, Query(description="Only where the reason holds this, whatever its case")
    ] = None,
    since: Since = None,
    after: Annotated[str | None, Query(pattern=LETTER_ID, description="`next_after` of the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=200, description="Letters a page")] = 50,
) -> Response:
    """What the event fold could not take, in landing and lake, without the bytes."""
    found = worker.get().dead_letters.letters(Asked((), source, partition, reason, _since(since)))
    start = 0 if after is None else sum(not _later(letter, after) for letter in found)
    page = found[start : start + limit]
    more = start + limit < len(found)
    told = [Letter(**_described(letter)) for letter in page]
    return answer(Letters(letters=told, total=len(found), next_after=str(page[-1].id) if more else None))


@router.get(
    "/dead_letters/{source}/{partition}/{sequence}", dependencies=[access.OPERATOR], response_model=WholeLetter,
    responses=problems(404, 422, 503),
)  # fmt: skip
def get_dead_letter(source: SourcePath, partition: PartitionPath, sequence: SequencePath, worker: Worker) -> Response:
    """One letter with its bytes."""
    from shared.ingest.dead_letter_box import body_text  # noqa: PLC0415 - Arrow takes 0.2 s to import

    (letter,) = worker.get().dead_letters.letters(Asked([f"{source}/{partition}/{sequence}"]))
    body, hexadecimal = body_text(letter)
    record = letter.replay
    finished = None if record is None else record.finished_at
    return answer(
        WholeLetter(
            **_described(letter),
            body=body,
            hexadecimal=hexadecimal,
            replay_begun_at=None if record is None else iso(record.begun_at),
            replay_finished_at=None if finished is None else iso(finished),
        )
    )


@router.post(
    "/dead_letters/{source}/{partition}/{sequence}/replay", dependencies=[access.OPERATOR],
    response_model=LetterOutcome, responses=problems(404, 409, 422, 503),
)  # fmt: skip
def replay_dead_letter(
    source: SourcePath, partition: PartitionPath, sequence: SequencePath, worker: Worker
) -> Response:
    """Publish one letter's event anew, under its own event id: replayed twice it counts once.

    409: its bytes are no event, so there is nothing to publish. 503: the broker log did not acknowledge; send it again.
    """
    letter_id = f"{source}/{partition}/{sequence}"
    services = worker.get()
    letters = services.dead_letters.letters(Asked([letter_id]))
    done = services.dead_letters.replay(letters)
    outcomes = _outcomes(done.fates)
    if done.fault is not None or not outcomes or outcomes[0].outcome == _UNACKNOWLEDGED:
        return _unacknowledged(outcomes, done.fault)
    if outcomes[0].outcome == "no_event":
        return problem(409, f"the bytes of {letter_id} are no event: it cannot be replayed", kind="not_replayable")
    return answer(outcomes[0])


@router.post(
    "/dead_letters/replay", dependencies=[access.OPERATOR], response_model=ReplayReport,
    responses=problems(400, 404, 413, 422, 503),
)  # fmt: skip
def replay_dead_letters(wanted: ReplayRequest, worker: Worker) -> Response:
    """Publish many anew, each under its own event id, those that were replayed before left out.

    Name ids, filters, or `all`. 404: an id that was named is not there; nothing was replayed. 503: the broker log did
    not acknowledge all; `outcomes` tells how far it came, and sending the same again finishes it.
    """
    asked = Asked(wanted.ids, wanted.source, wanted.partition, wanted.reason, _since(wanted.since))
    if asked == Asked([]) and not wanted.all:
        return problem(422, "say which to replay: ids, a filter, or all", kind="nothing_named")
    return _replay(worker, asked, dry_run=wanted.dry_run)


def _replay(worker: WorkerServices, asked: Asked, *, dry_run: bool) -> Response:
    desk = worker.get().dead_letters
    found = desk.letters(asked)
    # Whoever names letters hears of each; filters pass over what is done, so that sending it again comes to an end.
    open_ = found if asked.ids else [letter for letter in found if _described(letter)["replay"] in {"none", "begun"}]
    taken = open_[:MOST_REPLAYED]
    remaining = len(open_) - len(taken)
    if dry_run:
        outcomes = [LetterOutcome(id=str(letter.id), outcome="would_be_replayed") for letter in taken]
        return answer(ReplayReport(outcomes=outcomes, remaining=remaining))
    done = desk.replay(taken)
    outcomes = _outcomes(done.fates)
    if done.fault is not None or any(one.outcome == _UNACKNOWLEDGED for one in outcomes):
        return _unacknowledged(outcomes, done.fault)
    return answer(ReplayReport(outcomes=outcomes, remaining=remaining))


def _unacknowledged(outcomes: Sequence[LetterOutcome], fault: str | None) -> Response:
    text = fault or "the broker log did not acknowledge all of them; send the same again"
    kind = "broker_log_unavailable" if fault is not None else "partly_acknowledged"
    return problem(503, text, kind=kind, outcomes=[one.model_dump() for one in outcomes])


def _outcomes(fates: Sequence[tuple[DeadLetter, Any]]) -> list[LetterOutcome]:
    return [LetterOutcome(id=str(letter.id), outcome=fate.name.lower()) for letter, fate in fates]


def _described(letter: DeadLetter) -> dict[str, Any]:
    from shared.ingest.dead_letter_box import replay_state  # noqa: PLC0415 - Arrow takes 0.2 s to import

    event, state = letter.event, replay_state(letter)
    return {
        "id": str(letter.id),
        "enqueued_at": iso(letter.row.enqueued_at),
        "reason": letter.row.reason,
        "event_id": None if event is None else event.event_id,
        "event_type": None if event is None else event.event_type.value,
        "replay": _REPLAY.get(state, state),
        "bytes": len(letter.row.body),
    }


def _later(letter: DeadLetter, after: str) -> bool:
    source, partition, sequence = after.split("/")
    return (letter.id.source, letter.id.partition, letter.id.sequence) > (source, int(partition), int(sequence))


def _since(instant: datetime | None) -> int | None:
    if instant is None:
        return None
    return to_ms(instant if instant.tzinfo else instant.replace(tzinfo=UTC))
