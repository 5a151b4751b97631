"""DELETE /user_profile/{user_id} and GET /erasures/{receipt}."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from fastapi.responses import Response

from functions.addressable_ids import check_addressable
from functions.api import access
from functions.api.erasures_models import ErasedStore, ErasureAccepted, ErasureReport
from functions.api.parameters import UserIdPath, answer, iso, problems
from functions.api.problems import problem
from functions.api.worker import Worker
from functions.erasure.user_eraser import Unacknowledged
from shared.errors import UnknownReceipt

router = APIRouter(tags=["users"])

ReceiptPath = Annotated[
    str, Path(description="As DELETE /user_profile/{user_id} gave it", examples=["0f9a1b2c3d4e5f60718293a4b5c6d7e8"])
]


@router.delete(
    "/user_profile/{user_id}",
    dependencies=[access.SHOPPER],
    status_code=202,
    response_model=ErasureAccepted,
    responses=problems(422, 503),
)
def delete_user_profile(user_id: UserIdPath, worker: Worker) -> Response:
    """Forget a user: from the next request on no page, search or profile knows anything of her.

    202 says that the broker log has acknowledged it in every partition that may hold her; `GET /erasures/{receipt}`
    (also in the header `Location`) tells when each store is done. It is the same for a user nobody knows. 503: not
    everywhere yet. Where the problem has a `receipt`, the erasure is finished by itself; sending it again does no harm.
    """
    checked = check_addressable(user_id, "user_id")
    eraser = worker.get().erasures.eraser
    try:
        receipt = eraser.erase(checked)
    except Unacknowledged as error:
        return problem(
            503, str(error), kind="erasure_unacknowledged", headers={"Location": _address(error.receipt.receipt)},
            receipt=error.receipt.receipt,
        )  # fmt: skip
    told = answer(ErasureAccepted(receipt=receipt.receipt, erased_at=iso(receipt.erased_at)), 202)
    told.headers["Location"] = _address(receipt.receipt)
    return told


@router.get(
    "/erasures/{receipt}", dependencies=[access.ANYONE], response_model=ErasureReport, responses=problems(404, 422, 503)
)
def erasure(receipt: ReceiptPath, worker: Worker) -> Response:
    """Each store that may hold something of the user, and when it was or will be rid of it."""
    found = worker.get().erasures.receipt(receipt)
    if found is None:
        raise UnknownReceipt("there is no erasure with this receipt")
    stores = [
        ErasedStore(
            store=name,
            done_at=None if line.done_at is None else iso(line.done_at),
            due_at=None if line.due_at is None or line.done_at is not None else iso(line.due_at),
            detail=line.detail,
        )
        for name, line in found.stores.items()
    ]
    complete = all(one.done_at is not None for one in stores)
    report = ErasureReport(receipt=found.receipt, erased_at=iso(found.erased_at), complete=complete, stores=stores)
    return answer(report)


def _address(receipt: str) -> str:
    return f"/erasures/{receipt}"
