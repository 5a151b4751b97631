"""An erasure on its way into the broker log: one copy to every partition of the live stream that may hold the user."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from msgspec.structs import replace

from functions.circuit import Circuit
from shared.errors import BrokerUnavailable, InfrastructureFault
from shared.events import EventSource, encode_event
from shared.ingest.erasures import ErasurePlace, Receipt, change_receipt, withdraw_receipt
from shared.ports import Appended, BlobStore, EventLog


class NothingSent(BrokerUnavailable):
    """The broker log certainly has no copy of the erasure; its receipt was withdrawn."""


class ErasurePublisher:
    """Appends a receipt's erasure where it was not acknowledged, and writes down where it was."""

    def __init__(
        self, live: EventSource, event_log: EventLog, circuit: Circuit, blobs: BlobStore, clock: Callable[[], int]
    ) -> None:
        """`live` is the present stream, whatever its partition counts; `clock` tells epoch ms."""
        self._live = live
        self._event_log = event_log
        self._circuit = circuit
        self._blobs = blobs
        self._clock = clock

    def takes(self, place: ErasurePlace) -> bool:
        """Does this place belong to the live stream?"""
        return place.source == self._live.name

    def missing(self, receipt: Receipt) -> list[ErasurePlace]:
        """Where the broker log has not acknowledged it."""
        return [one for one in receipt.places if self.takes(one) and one.acknowledged_at is None]

    def publish_new(self, receipt: Receipt) -> Receipt:
        """As `publish`, of a receipt that was just opened.

        Raises:
            NothingSent: the broker log refused it, or was not even asked as it did not answer a moment ago.
            InfrastructureFault: it may have taken it.
        """
        sent = False

        def send() -> list[Appended | None]:
            nonlocal sent
            sent = True
            return self._send(receipt, self.missing(receipt))

        try:
            answers = self._circuit.call(send)
        except InfrastructureFault as fault:
            if fault.answered or not sent:
                withdraw_receipt(self._blobs, receipt.receipt)
                raise NothingSent(f"the user was not erased, send it again: {fault}") from fault
            raise
        return self._acknowledge(receipt, self.missing(receipt), answers)

    def publish(self, receipt: Receipt, places: Sequence[ErasurePlace]) -> Receipt:
        """Append it to these partitions, in one request, and return the receipt with what was acknowledged.

        Sent again where it stands already it counts once. Raises BrokerUnavailable when nothing was acknowledged,
        InfrastructureFault when that could not be written down, LakeConflict.
        """
        answers = self._circuit.call(lambda: self._send(receipt, places))
        return self._acknowledge(receipt, places, answers)

    def _send(self, receipt: Receipt, places: Sequence[ErasurePlace]) -> list[Appended | None]:
        body = encode_event(receipt.event())
        return self._event_log.append_to([(one.partition, body) for one in places])

    def _acknowledge(
        self, receipt: Receipt, places: Sequence[ErasurePlace], answers: Sequence[Appended | None]
    ) -> Receipt:
        at = self._clock()
        told = [
            replace(place, acknowledged_at=at, sequence=answer.sequence)
            for place, answer in zip(places, answers, strict=True)
            if answer is not None
        ]
        return acknowledge(self._blobs, receipt, told)


def acknowledge(blobs: BlobStore, receipt: Receipt, places: Collection[ErasurePlace]) -> Receipt:
    """Write down what these places told; raises as `change_receipt`."""
    told = {(one.source, one.partition): one for one in places}

    def change(held: Receipt) -> Receipt:
        return replace(held, places=tuple(told.get((one.source, one.partition), one) for one in held.places))

    return change_receipt(blobs, receipt.receipt, change) or change(receipt)
