"""A peer that speaks AMQP 1.0 on a socket as an event hub does, as far as Microsoft's SDK asks: its outer boundary.

Frames are coded with the SDK's own codec; everything above is the real SDK: connection, SASL, $cbs, $management, links,
credit, batches. What the peer does is what the protocol and the SDK's source say, not what the service was seen to
do: no emulator runs without Docker. One thread a connection.
"""

from __future__ import annotations

import re
import socket
import struct
import threading
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from azure.eventhub._pyamqp import performatives as frames
from azure.eventhub._pyamqp._decode import decode_frame, decode_payload
from azure.eventhub._pyamqp._encode import encode_frame, encode_payload
from azure.eventhub._pyamqp.endpoints import Source, Target
from azure.eventhub._pyamqp.error import AMQPError
from azure.eventhub._pyamqp.message import Message, Properties
from azure.eventhub._pyamqp.outcomes import Accepted, Rejected
from azure.eventhub._pyamqp.types import TYPE, VALUE, AMQPTypes

SASL, AMQP = b"AMQP\x03\x01\x00\x00", b"AMQP\x00\x01\x00\x00"
OPEN, BEGIN, ATTACH, FLOW, TRANSFER, DETACH, END, CLOSE = 16, 17, 18, 19, 20, 22, 23, 24
BATCH_FORMAT = 0x80013700
POSITION = re.compile(rb"amqp\.annotation\.x-opt-sequence-number (>=?) '(-?\d+)'")


@dataclass(frozen=True)
class Stored:
    """A record of the hub."""

    sequence: int
    enqueued_at: int
    body: bytes


@dataclass
class Faults:
    """What the peer does wrong from now on; partitions by number."""

    reject: dict[int, bytes] = field(default_factory=dict)
    silent: set[int] = field(default_factory=set)
    hang_up: Counter[int] = field(default_factory=Counter)
    forget: set[int] = field(default_factory=set)
    mute: bool = False
    refuse_token: bool = False
    withhold: bool = False


class EventHubPeer:
    """An event hub with `partition_count` partitions on a loopback port."""

    def __init__(self, partition_count: int, *, max_message_size: int = 1024 * 1024, now_ms: int = 1_780_000_000_000):
        self.partitions: list[list[Stored]] = [[] for _ in range(partition_count)]
        self.beginnings = [0] * partition_count
        self.max_message_size = max_message_size
        self.now_ms = now_ms
        self.faults = Faults()
        self.transfers: list[tuple[int, int]] = []
        """(partition, records) of each message taken."""
        self.tokens: list[str] = []
        self.attached: list[dict[str, Any]] = []
        self.lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._connections: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    @property
    def connection_string(self) -> str:
        """As the emulator's, which has no TLS."""
        return (
            f"Endpoint=sb://{self.host};SharedAccessKeyName=root;SharedAccessKey=bm90IGEgc2VjcmV0;"
            "UseDevelopmentEmulator=true"
        )

    def append(self, partition: int, bodies: list[bytes]) -> None:
        with self.lock:
            log = self.partitions[partition]
            for body in bodies:
                self.now_ms += 1
                log.append(Stored(len(log), self.now_ms, body))

    def bodies(self, partition: int) -> list[bytes]:
        with self.lock:
            return [stored.body for stored in self.partitions[partition]]

    def hang_up(self) -> None:
        """Break every connection there is."""
        for connection in self._connections:
            shut_down(connection)

    def __enter__(self) -> Self:
        thread = threading.Thread(target=self._accept, daemon=True)
        self._threads.append(thread)
        thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shut_down(self._listener)
        self.hang_up()
        for thread in self._threads:
            thread.join(5)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                self._listener.close()
                return
            self._connections.append(connection)
            thread = threading.Thread(target=_Connection(self, connection).serve, daemon=True)
            self._threads.append(thread)
            thread.start()


def shut_down(connection: socket.socket) -> None:
    with suppress(OSError):  # it may be gone already
        connection.shutdown(socket.SHUT_RDWR)


class _Gone(Exception):
    """The other side closed, or the peer hung up."""


@dataclass
class _Link:
    """One link of a connection; `role` True is a client that receives."""

    handle: int
    role: bool
    address: str
    next_sequence: int = 0
    credit: int = 0
    delivery_id: int = 0
    payload: bytearray = field(default_factory=bytearray)

    @property
    def partition(self) -> int | None:
        found = re.search(r"/Partitions/(\d+)$", self.address)
        return int(found[1]) if found else None


class _Connection:
    def __init__(self, peer: EventHubPeer, connection: socket.socket) -> None:
        self.peer = peer
        self.socket = connection
        self.links: dict[tuple[int, int], _Link] = {}
        self.deliveries: dict[int, int] = defaultdict(int)
        self.handlers: dict[int, Callable[[int, list[Any]], None]] = {
            OPEN: self._open, BEGIN: self._begin, ATTACH: self._attach, FLOW: self._flow, TRANSFER: self._transfer,
            DETACH: self._detach, END: lambda channel, _: self._write(channel, _made(frames.EndFrame)),
        }  # fmt: skip

    def serve(self) -> None:
        try:
            self._greet()
            while True:
                channel, frame = self._read()
                if frame is None:
                    continue
                if frame[0] == CLOSE:
                    self._write(0, _made(frames.CloseFrame))
                    return
                if frame[0] in self.handlers:
                    self.handlers[frame[0]](channel, frame[1])
        except (_Gone, OSError):
            return
        finally:
            self.socket.close()

    def _greet(self) -> None:
        assert self._exactly(8) == SASL
        while self.peer.faults.mute:
            self._exactly(1)
        self.socket.sendall(SASL)
        self._write(0, _made(frames.SASLMechanism, sasl_server_mechanisms=[b"ANONYMOUS", b"MSSBCBS"]), kind=b"\x01")
        self._read()
        self._write(0, _made(frames.SASLOutcome, code=0), kind=b"\x01")
        assert self._exactly(8) == AMQP
        self.socket.sendall(AMQP)

    def _exactly(self, count: int) -> bytes:
        found = b""
        while len(found) < count:
            piece = self.socket.recv(count - len(found))
            if not piece:
                raise _Gone
            found += piece
        return found

    def _read(self) -> tuple[int, tuple[int, list[Any]] | None]:
        size, _, _, channel = struct.unpack(">IBBH", self._exactly(8))
        body = self._exactly(size - 8)
        return channel, decode_frame(memoryview(body)) if body else None

    def _write(self, channel: int, frame: Any, kind: bytes = b"\x00") -> None:
        header, body = encode_frame(frame, frame_type=kind)
        self.socket.sendall(bytes(header) + struct.pack(">H", channel) + bytes(body or b""))

    def _open(self, channel: int, _: list[Any]) -> None:
        self._write(channel, _made(frames.OpenFrame, container_id="peer", max_frame_size=65536, channel_max=100))

    def _begin(self, channel: int, _: list[Any]) -> None:
        window = {"next_outgoing_id": 0, "incoming_window": 5000, "outgoing_window": 5000, "handle_max": 255}
        self._write(channel, _made(frames.BeginFrame, remote_channel=channel, **window))

    def _attach(self, channel: int, fields: list[Any]) -> None:
        name, handle, role = fields[0].decode(), fields[1], fields[2]
        address = (fields[5] if role else fields[6])[0].decode()
        link = self.links[channel, handle] = _Link(handle, role, address)
        if role and link.partition is not None:
            link.next_sequence = _start_of(fields[5][7])
        self.peer.attached.append({"address": address, "role": role, "properties": fields[13] or {}})
        self._write(
            channel,
            _made(
                frames.AttachFrame,
                name=name, handle=handle, role=not role, send_settle_mode=0, rcv_settle_mode=0,
                source=_made(Source, address=address), target=_made(Target, address=address),
                initial_delivery_count=0 if role else None, max_message_size=self.peer.max_message_size,
            ),
        )  # fmt: skip
        if not role:
            self._grant(channel, link)

    def _grant(self, channel: int, link: _Link) -> None:
        self._write(
            channel,
            _made(
                frames.FlowFrame,
                next_incoming_id=self.deliveries[channel], incoming_window=5000, next_outgoing_id=0,
                outgoing_window=5000, handle=link.handle, delivery_count=link.delivery_id, link_credit=1000,
            ),
        )  # fmt: skip

    def _flow(self, channel: int, fields: list[Any]) -> None:
        link = self.links.get((channel, fields[4])) if fields[4] is not None else None
        if link is not None and link.role and link.partition is not None:
            link.credit = fields[6] or 0
            self._deliver(channel, link, link.partition)

    def _deliver(self, channel: int, link: _Link, partition: int) -> None:
        """What is there now; a test's readers never wait for more."""
        if self.peer.faults.withhold:
            return
        with self.peer.lock:
            first = max(link.next_sequence, self.peer.beginnings[partition])
            found = self.peer.partitions[partition][first : first + link.credit]
        for stored in found:
            annotations: dict[str | bytes, Any] = {
                b"x-opt-sequence-number": {TYPE: AMQPTypes.long, VALUE: stored.sequence},
                b"x-opt-offset": str(stored.sequence * 100),
                b"x-opt-enqueued-time": {TYPE: AMQPTypes.timestamp, VALUE: stored.enqueued_at},
            }
            self._push(channel, link, Message(message_annotations=annotations, data=[stored.body]))
            link.next_sequence = stored.sequence + 1
            link.credit -= 1

    def _push(self, channel: int, link: _Link, message: Message) -> None:
        payload = bytearray()
        encode_payload(payload, message)
        pieces = [payload[start : start + 60_000] for start in range(0, len(payload), 60_000)]
        for place, piece in enumerate(pieces):
            self._write(
                channel,
                _made(
                    frames.TransferFrame,
                    handle=link.handle, delivery_id=link.delivery_id, delivery_tag=struct.pack(">I", link.delivery_id),
                    message_format=0, settled=True, more=place < len(pieces) - 1, payload=piece,
                ),
            )  # fmt: skip
        link.delivery_id += 1

    def _transfer(self, channel: int, fields: list[Any]) -> None:
        link = self.links[channel, fields[0]]
        link.payload += fields[11]
        if fields[5]:
            return
        self.deliveries[channel] += 1
        link.delivery_id += 1
        payload, link.payload = bytes(link.payload), bytearray()
        message = decode_payload(memoryview(payload))
        state: Any = Accepted()
        if link.partition is not None:
            answer = self._take(link.partition, message, len(payload))
            if answer is None:
                return
            state = answer
        disposition = _made(
            frames.DispositionFrame, role=True, first=fields[1], last=fields[1], settled=True, state=state
        )
        self._write(channel, disposition)
        if link.address == "$cbs":
            refused = self.peer.faults.refuse_token
            self.peer.tokens.append(str(message.value))
            self._respond(channel, link, message, 401 if refused else 202, None)
        elif link.address == "$management":
            self._respond(channel, link, message, 200, self._management(message.application_properties or {}))

    def _take(self, partition: int, message: Message, size: int) -> Any:
        """Store a message's records and accept it; None is silence."""
        faults = self.peer.faults
        if faults.hang_up[partition] > 0:
            faults.hang_up[partition] -= 1
            raise _Gone
        if partition in faults.reject:
            return Rejected(error=AMQPError(condition=faults.reject[partition], description="no", info=None))
        if size > self.peer.max_message_size:
            return Rejected(
                error=AMQPError(condition=b"amqp:link:message-size-exceeded", description="too large", info=None)
            )
        sections: Any = message.data
        records: list[Any] = [decode_payload(memoryview(section)).data for section in sections]
        bodies = [b"".join(record) for record in records]
        self.peer.append(partition, bodies)
        self.peer.transfers.append((partition, len(bodies)))
        if partition in faults.forget:
            faults.forget.remove(partition)
            raise _Gone
        return None if partition in faults.silent else Accepted()

    def _management(self, asked: dict[Any, Any]) -> dict[str, Any]:
        peer = self.peer
        with peer.lock:
            if asked[b"type"] == b"com.microsoft:eventhub":
                ids = [str(number) for number in range(len(peer.partitions))]
                return {"name": "hub", "created_at": _timestamp(0), "partition_ids": ids}
            number = int(asked[b"partition"])
            log, begin = peer.partitions[number], peer.beginnings[number]
            last = log[-1] if log else None
            return {
                "name": "hub", "partition": str(number),
                "begin_sequence_number": _long(begin if begin < len(log) else 0),
                "last_enqueued_sequence_number": _long(last.sequence if last else -1), "last_enqueued_offset": "0",
                "is_partition_empty": begin >= len(log),
                "last_enqueued_time_utc": _timestamp(last.enqueued_at if last else 0),
            }  # fmt: skip

    def _respond(self, channel: int, request: _Link, message: Message, status: int, value: Any) -> None:
        link = next(
            link
            for (at, _), link in self.links.items()
            if at == channel and link.role and link.address == request.address
        )
        asked: Any = message.properties
        properties = Properties(correlation_id=asked.message_id)
        told: dict[str | bytes, Any] = {
            "status-code": status,
            "status-description": "refused" if status >= 400 else "OK",
        }
        self._push(
            channel,
            link,
            Message(properties=properties, application_properties=told, value=value or {"answer": "none"}),
        )

    def _detach(self, channel: int, fields: list[Any]) -> None:
        self.links.pop((channel, fields[0]), None)
        self._write(channel, _made(frames.DetachFrame, handle=fields[0], closed=True))


def _made(kind: Any, **fields: Any) -> Any:
    """A frame whose other fields are null."""
    return kind(**{name: fields.get(name) for name in kind._fields})


def _start_of(filters: Any) -> int:
    found = POSITION.search(repr(filters).encode().replace(b'"', b"'").replace(b"\\'", b"'")) if filters else None
    if found is None:
        return 0
    return int(found[2]) + (0 if found[1] == b">=" else 1)


def _long(value: int) -> dict[str, Any]:
    return {TYPE: AMQPTypes.long, VALUE: value}


def _timestamp(value: int) -> dict[str, Any]:
    return {TYPE: AMQPTypes.timestamp, VALUE: value}
