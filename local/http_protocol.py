"""uvicorn's HTTP protocol with what it lacks against hostile clients: deadlines and bounds before a request is whole.

Once the headers are there the application's own limits hold (functions/api/request_limits.py); on Azure the host in
front of the workers does what is done here.
"""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from http import HTTPStatus
from typing import ClassVar, Final

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from shared.log_lines import FIELDS
from shared.settings import Settings

log = logging.getLogger(__name__)

HEAD_ALLOWANCE_BYTES: Final = 512 * 1024
"""Beyond the headers' own limit: the longest query, and a read that began with something else."""
LONGEST_URL_BYTES: Final = 65_535
"""What httptools takes apart."""
MOST_PIPELINED: Final = 100


class GuardedProtocol(HttpToolsProtocol):
    """One connection. Headers have a deadline and a bound, and so have unread answers and requests sent ahead."""

    read_timeout_s: ClassVar[float]
    most_head_bytes: ClassVar[int]

    _deadline: asyncio.TimerHandle | None = None
    _write_deadline: asyncio.TimerHandle | None = None
    _in_head = False
    _whole = True
    _head_bytes = 0
    _answered: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        """A connection must bring a request in time."""
        super().connection_made(transport)
        self._set_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is due any more."""
        self._clear_deadline()
        self.resume_writing()
        if self._answered is not None:
            # uvicorn tells only the request that came last; the one being answered would write to a closed socket.
            self._answered.disconnected = True
            self._answered.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse, and count what belongs to headers that are not whole."""
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > self.most_head_bytes:
                self._refuse(431, "headers_too_large", "the headers are larger than any request needs")

    def on_message_begin(self) -> None:
        """A request begins: its headers have a deadline."""
        super().on_message_begin()
        self._in_head, self._whole, self._head_bytes = True, False, 0
        if self._deadline is None:
            self._set_deadline()

    def on_headers_complete(self) -> None:
        """From here on the application waits, unless too many requests were sent ahead."""
        self._in_head = False
        self._clear_deadline()
        if self.transport.is_closing():
            return
        if len(self.url) > LONGEST_URL_BYTES:
            self._refuse(414, "address_too_long", f"the address has more than {LONGEST_URL_BYTES} bytes")
            return
        super().on_headers_complete()
        if len(self.pipeline) > MOST_PIPELINED:
            self.transport.close()

    def on_body(self, body: bytes) -> None:
        """Of a connection that is being closed nothing more is taken."""
        if not self.transport.is_closing():
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._whole = True
        self._clear_deadline()
        if not self.transport.is_closing():
            super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answered = cycle
        super()._start_asgi_task(cycle, app)

    def _unsupported_upgrade_warning(self) -> None:
        """An upgrade that is not offered is ignored, as RFC 9110 (section 7.8) has it, and no news."""

    def on_response_complete(self) -> None:
        """What comes of a body after its answer has a deadline too."""
        super().on_response_complete()
        if not self._whole and not self._in_head and self._deadline is None:
            self._set_deadline()

    def pause_writing(self) -> None:
        """The client does not read: it has a deadline for that as well."""
        super().pause_writing()
        self._write_deadline = self.loop.call_later(self.read_timeout_s, self.transport.abort)

    def resume_writing(self) -> None:
        """It reads."""
        if self._write_deadline is not None:
            self._write_deadline.cancel()
            self._write_deadline = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - the parser's text names nothing the sender needs
        """What is no HTTP is answered as every other error is."""
        self._refuse(400, "malformed_request", "this is no HTTP/1.1 request")

    def _set_deadline(self) -> None:
        self._deadline = self.loop.call_later(self.read_timeout_s, self._overdue)

    def _clear_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _overdue(self) -> None:
        self._deadline = None
        if self._in_head:
            self._refuse(408, "headers_too_slow", f"the headers were not whole after {self.read_timeout_s:g} s")
        else:
            self.transport.close()

    def _refuse(self, status: int, kind: str, detail: str) -> None:
        if self.transport.is_closing():
            return
        request_id = uuid.uuid4().hex
        phrase = HTTPStatus(status).phrase
        body = {
            "type": f"urn:recommndr:problem:{kind}",
            "title": phrase,
            "status": status,
            "detail": detail,
            "request_id": request_id,
        }
        content = json.dumps(body).encode()
        head = (
            f"HTTP/1.1 {status} {phrase}\r\ncontent-type: application/problem+json\r\n"
            f"content-length: {len(content)}\r\nx-request-id: {request_id}\r\nx-content-type-options: nosniff\r\n"
            "cache-control: no-store\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode("ascii") + content)
        self.transport.close()
        log.info("request", extra={FIELDS: {"request_id": request_id, "route": "none", "status": status}})


def guarded_protocol(settings: Settings) -> type[GuardedProtocol]:
    """The protocol with a worker's limits."""

    class Guarded(GuardedProtocol):
        read_timeout_s = settings.read_timeout_ms / 1000
        most_head_bytes = settings.max_header_bytes + HEAD_ALLOWANCE_BYTES

    return Guarded
