"""Event Hubs at the SDK's outer boundary: the real SDK against a peer on a socket. The service itself is not here."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from shared.adapters.broker import open_broker
from shared.adapters.event_hubs_connection import EventHubsAddress, client_openers, parse_address
from shared.adapters.event_hubs_log import MOST_WAITING, STUCK_S, EventHubsEventLog
from shared.adapters.event_hubs_reader import EventHubsRetainedLog
from shared.errors import BrokerUnavailable, ConfigurationError, EventsRefused
from shared.events import partition_of
from shared.ports import Appended, LogRecord
from shared.settings import Settings
from tests.contract.event_hub_peer import EventHubPeer

PARTITIONS = 2
PATIENT_MS, HASTY_MS = 20_000, 1500
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
"""The SDK drops the socket of a connection that broke without closing it."""
EVENTS = [(f"user-{number % 7}", b"event %d" % number) for number in range(40)]


@pytest.fixture(scope="module", autouse=True)
def _nothing_of_the_sdk_outlives_the_module() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
    gc.collect()


@pytest.fixture(autouse=True)
def _the_sdk_polls_more_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """It sleeps 50 ms between two looks at a link and 1 s between two at its keep-alive; a test has not the time."""
    brisk = SimpleNamespace(time=time.time, sleep=lambda seconds: time.sleep(seconds / 20))
    for module in ("_client_base", "_pyamqp.client"):
        monkeypatch.setattr(f"azure.eventhub.{module}.time", brisk)


@pytest.fixture
def peer() -> Iterator[EventHubPeer]:
    with EventHubPeer(PARTITIONS) as started:
        yield started


class Clock:
    """Monotonic seconds that a test can push forward."""

    ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


@pytest.fixture
def open_log(peer: EventHubPeer) -> Iterator[Callable[..., EventHubsEventLog]]:
    opened: list[EventHubsEventLog] = []

    def make(timeout_ms: int = PATIENT_MS, clock: Clock | None = None) -> EventHubsEventLog:
        producer, _ = client_openers(parse_address(f"eventhubs://{peer.host}/hub"), peer.connection_string)
        opened.append(EventHubsEventLog(producer, PARTITIONS, timeout_ms=timeout_ms, seconds=clock or time.monotonic))
        return opened[-1]

    yield make
    for log in opened:
        for sender in log._senders:
            sender.end()  # and nobody waits: the SDK takes a second to close a connection


def reader_of(peer: EventHubPeer, timeout_ms: int = PATIENT_MS) -> EventHubsRetainedLog:
    address = parse_address(f"eventhubs://{peer.host}/hub")
    _, consumer = client_openers(address, peer.connection_string)
    return EventHubsRetainedLog(consumer, "live-1", PARTITIONS, consumer_group="$Default", timeout_ms=timeout_ms)


def reading_link(peer: EventHubPeer) -> tuple[str, int | None]:
    """Consumer group and partition of the newest link that reads, and its owner level."""
    link = [link for link in peer.attached if "ConsumerGroups" in link["address"]][-1]
    return link["address"].partition("/ConsumerGroups/")[2], link["properties"].get(b"com.microsoft:epoch")


def in_partition(number: int, events: list[tuple[str, bytes]] = EVENTS) -> list[bytes]:
    return [body for key, body in events if partition_of(key, PARTITIONS) == number]


def test_every_event_goes_to_the_partition_of_its_key_in_order(
    peer: EventHubPeer, open_log: Callable[..., EventHubsEventLog]
) -> None:
    log = open_log()
    appended = log.append(EVENTS)
    assert appended == [Appended(partition_of(key, PARTITIONS), None) for key, _ in EVENTS]
    assert [peer.bodies(0), peer.bodies(1)] == [in_partition(0), in_partition(1)]
    assert min(map(len, peer.partitions)) > 5
    assert sorted(peer.transfers) == [(0, len(in_partition(0))), (1, len(in_partition(1)))], "one batch a partition"
    assert {link["address"].rpartition("hub")[2] for link in peer.attached} >= {"/Partitions/0", "/Partitions/1"}
    assert all("SharedAccessSignature" in token for token in peer.tokens)
    assert log.append([]) == []
    log.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("event-hubs")]


def test_what_names_its_partition_goes_there_and_what_names_none_is_told_apart(
    peer: EventHubPeer, open_log: Callable[..., EventHubsEventLog]
) -> None:
    log = open_log()
    assert log.append_to([(1, b"copy"), (0, b"copy"), (7, b"nowhere"), (1, b"last")]) == [
        Appended(1, None),
        Appended(0, None),
        None,
        Appended(1, None),
    ]
    assert [peer.bodies(0), peer.bodies(1)] == [[b"copy"], [b"copy", b"last"]]
    with pytest.raises(BrokerUnavailable, match="no such partition"):
        log.append_to([(7, b"nowhere")])


def test_requests_at_once_share_the_senders_and_each_keeps_its_order(
    peer: EventHubPeer, open_log: Callable[..., EventHubsEventLog]
) -> None:
    log = open_log()

    def post(user: int) -> bool:
        return all(all(log.append([(f"user-{user}", b"%d %d" % (user, number))])) for number in range(15))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(post, range(8)))
    for user in range(8):
        kept = [
            body for body in peer.bodies(partition_of(f"user-{user}", PARTITIONS)) if body.startswith(b"%d " % user)
        ]
        assert kept == [b"%d %d" % (user, number) for number in range(15)]


def test_batches_are_cut_by_the_size_the_hub_takes_and_an_event_beyond_it_fails_alone(
    open_log: Callable[..., EventHubsEventLog], peer: EventHubPeer
) -> None:
    peer.max_message_size = 2000
    sizes = [1900, 150, 255, 256, 257, 1, 1960, 3000, 700, 700, 600, 100, 1950, 5]
    events = [(key, bytes([65 + place]) * size) for place, size in enumerate(sizes) for key in ("user-0", "user-1")]
    log = open_log()
    appended = log.append(events)
    lost = [body for (_, body), answer in zip(events, appended, strict=True) if answer is None]
    assert {len(body) for body in lost} == {3000}, "one that fits alone is sent alone; none is lost with another"
    for number in range(PARTITIONS):
        assert peer.bodies(number) == [body for body in in_partition(number, events) if len(body) < 2500]
    assert len(peer.transfers) > 4
    assert all(count >= 1 for _, count in peer.transfers)


def test_only_what_the_hub_took_is_acknowledged(open_log: Callable[..., EventHubsEventLog], peer: EventHubPeer) -> None:
    log = open_log()
    peer.faults.reject[1] = b"com.microsoft:server-busy"
    appended = log.append(EVENTS)
    assert [answer is not None for answer in appended] == [partition_of(key, PARTITIONS) == 0 for key, _ in EVENTS]
    assert peer.bodies(0) == in_partition(0)
    assert peer.bodies(1) == []
    peer.faults.reject[0] = b"amqp:resource-limit-exceeded"
    with pytest.raises(EventsRefused, match=r"partition 0.*partition 1"):
        log.append(EVENTS)
    peer.faults.reject.clear()
    assert all(log.append(EVENTS))


def test_what_follows_a_batch_that_failed_is_not_sent_past_it(
    open_log: Callable[..., EventHubsEventLog], peer: EventHubPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer.max_message_size = 1000
    log = open_log()
    events = [("user-0", b"%03d" % number * 200) for number in range(5)]
    number = partition_of("user-0", PARTITIONS)
    assert all(log.append(events[:1]))
    taken = len(peer.transfers)

    def reject_from_the_second(partition: int, bodies: list[bytes]) -> None:
        store(partition, bodies)
        peer.faults.reject[number] = b"amqp:internal-error"

    store = peer.append
    monkeypatch.setattr(peer, "append", reject_from_the_second)
    appended = log.append(events)
    assert [answer is not None for answer in appended] == [True, False, False, False, False]
    assert len(peer.transfers) == taken + 1


def test_a_broken_connection_is_made_anew_and_what_it_had_delivered_comes_twice(
    open_log: Callable[..., EventHubsEventLog], peer: EventHubPeer
) -> None:
    log = open_log()
    assert all(log.append(EVENTS))
    peer.faults.hang_up[0] = 1
    peer.faults.forget.add(1)
    assert all(log.append(EVENTS))
    assert peer.bodies(0) == in_partition(0) * 2
    assert peer.bodies(1) == in_partition(1) * 3, "the event id tells; the log cannot"
    peer.hang_up()
    assert all(log.append(EVENTS)), "idle connections that broke unseen"


def test_a_partition_that_never_answers_holds_up_nobody_else(
    open_log: Callable[..., EventHubsEventLog], peer: EventHubPeer
) -> None:
    assert all(open_log().append(EVENTS))
    log = open_log(HASTY_MS)
    peer.faults.silent.add(1)
    for _ in range(3):
        try:
            appended = log.append(EVENTS)
        except BrokerUnavailable:
            continue  # the connections were not up in time
        assert not any(answer for (key, _), answer in zip(EVENTS, appended, strict=True) if partition_of(key, 2) == 1)
        if all(answer for (key, _), answer in zip(EVENTS, appended, strict=True) if partition_of(key, 2) == 0):
            break
    else:
        raise AssertionError("partition 0 was never acknowledged")


def test_a_service_that_accepts_and_says_nothing_is_left_and_found_again(
    open_log: Callable[..., EventHubsEventLog], peer: EventHubPeer
) -> None:
    peer.faults.mute = True
    clock = Clock()
    log = open_log(5, clock)
    for _ in range(MOST_WAITING):
        with pytest.raises(BrokerUnavailable, match="no answer in time"):
            log.append(EVENTS[:1])
    with pytest.raises(BrokerUnavailable, match="too many requests"):
        log.append(EVENTS[:1])
    peer.faults.mute = False
    clock.ahead = STUCK_S + 1
    log._timeout_s = PATIENT_MS / 1000
    assert all(log.append(EVENTS[:1]))


def test_who_is_refused_is_told(open_log: Callable[..., EventHubsEventLog], peer: EventHubPeer) -> None:
    peer.faults.refuse_token = True
    with pytest.raises(BrokerUnavailable, match="AuthenticationError"):
        open_log().append(EVENTS)
    with pytest.raises(BrokerUnavailable, match="Authentic"):
        reader_of(peer).last_sequence(0)


def test_how_far_the_hub_reaches(peer: EventHubPeer) -> None:
    log = reader_of(peer)
    assert (log.first_sequence(0), log.last_sequence(0)) == (0, None), "never written to"
    peer.append(0, [b"%d" % number for number in range(9)])
    assert (log.first_sequence(0), log.last_sequence(0)) == (0, 8)
    peer.beginnings[0] = 5
    log.trim_below(0, 8)
    assert log.first_sequence(0) == 5, "retention is the hub's alone"
    peer.beginnings[0] = 9
    assert log.first_sequence(0) == 9, "all of it is gone"
    assert log.read(0, 4, 10) == []


def test_records_are_read_from_a_sequence_on_and_a_few_pages_at_once(peer: EventHubPeer) -> None:
    peer.now_ms = 1_780_000_000_996
    bodies = [b"%d" % number * (1 + number % 50) for number in range(700)]
    peer.append(1, bodies)
    log = reader_of(peer)
    kept = peer.partitions[1]
    expected = [LogRecord("live-1", 1, one.sequence, one.enqueued_at, one.body) for one in kept]
    assert log.read(1, 99, 100) == expected[100:200]
    links = len(peer.attached)
    assert log.read(1, 199, 450) == expected[200:650]
    assert log.read(1, 649, 100) == expected[650:]
    assert len(peer.attached) == links, "fetched with the first"
    assert reading_link(peer) == ("$Default/Partitions/1", 1), "taken over from the trigger, whose level is 0"
    assert log.read(1, 699, 10) == []
    assert log.read(0, -1, 10) == []
    peer.beginnings[1] = 650
    assert log.read(1, 20, 5) == expected[650:655]


def test_a_hub_that_holds_records_and_gives_none_is_a_fault_and_no_hole(peer: EventHubPeer) -> None:
    peer.append(0, [b"one"])
    peer.faults.withhold = True
    with pytest.raises(BrokerUnavailable, match="gave none"):
        reader_of(peer, timeout_ms=HASTY_MS).read(0, -1, 10)


def test_a_hub_that_does_not_answer_is_a_fault(peer: EventHubPeer) -> None:
    peer.faults.mute = True
    with pytest.raises(BrokerUnavailable, match=r"within 0\.1 s"):
        reader_of(peer, timeout_ms=100).first_sequence(0)


def test_another_number_of_partitions_is_refused(peer: EventHubPeer) -> None:
    peer.partitions.append([])
    with pytest.raises(ConfigurationError, match="3 partitions and PARTITION_COUNT is 2"):
        reader_of(peer).last_sequence(0)


def test_addresses() -> None:
    url = "eventhubs://shop.servicebus.windows.net/events"
    assert parse_address(url) == EventHubsAddress("shop.servicebus.windows.net", "events", "$Default")
    assert parse_address(f"{url}?consumer_group=refill").consumer_group == "refill"
    for wrong in ("eventhubs://", "eventhubs:///events", f"{url}/more", "eventhubs://shop", f"{url}?group=x",
                  "eventhubs://user:secret@shop.servicebus.windows.net/events", "kafka://shop/events"):  # fmt: skip
        with pytest.raises(ConfigurationError, match="eventhubs://<namespace>"):
            parse_address(wrong)


@pytest.mark.parametrize(
    ("connection_string", "says"),
    [
        ("a password", "no connection string"),
        ("Endpoint=sb://shop.servicebus.windows.net/;SharedAccessKeyName=k", "no connection string"),
        ("Endpoint=sb://other.servicebus.windows.net/;SharedAccessKeyName=k;SharedAccessKey=c2VjcmV0", "is of other"),
        (
            "Endpoint=sb://shop.servicebus.windows.net/;SharedAccessKeyName=k;SharedAccessKey=c2VjcmV0;EntityPath=x",
            "the hub x",
        ),
    ],
)
def test_a_connection_string_of_something_else_is_refused(connection_string: str, says: str) -> None:
    address = parse_address("eventhubs://shop.servicebus.windows.net/events")
    with pytest.raises(ConfigurationError, match=says) as refused:
        client_openers(address, connection_string)
    assert "c2VjcmV0" not in str(refused.value)


def test_the_address_chooses_event_hubs_and_the_setting_is_the_connection_string(peer: EventHubPeer) -> None:
    settings = Settings(
        event_log_url=f"eventhubs://{peer.host}/hub?consumer_group=refill",
        event_log_password=peer.connection_string,
        event_log_timeout_ms=PATIENT_MS,
        partition_count=PARTITIONS,
    )
    broker = open_broker(settings)
    assert peer.attached == [], "nothing connects before it is used"
    assert all(broker.producer.append(EVENTS))
    number = partition_of(EVENTS[0][0], PARTITIONS)
    assert broker.reader.read(number, -1, 1)[0].body == EVENTS[0][1]
    assert reading_link(peer) == (f"refill/Partitions/{number}", None), "in a group of its own there is nobody to oust"
    broker.close()


def test_without_a_connection_string_the_identity_signs_in() -> None:
    class Identity:
        def __init__(self) -> None:
            self.scopes: list[Any] = []

        def get_token(self, *scopes: str, **_: Any) -> Any:
            self.scopes.append(scopes)
            raise OSError("no identity here")

    identity = Identity()
    producer, consumer = client_openers(EventHubsAddress("127.0.0.1:1", "events"), None, identity)
    with producer() as client:
        assert client.eventhub_name == "events"
        token = client._create_auth().get_token
        with pytest.raises(OSError, match="no identity"):
            token()
    with consumer() as other:
        assert other._consumer_group == "$Default"
    assert identity.scopes == [("https://eventhubs.azure.net//.default",)]
