"""How Kafka is reached: the address, who we are, and what is asked of the topic before it is trusted."""

from __future__ import annotations

import base64
import binascii
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic  # type: ignore[attr-defined]  # no __all__

from shared.errors import BrokerUnavailable, ConfigurationError
from shared.settings import Settings

log = logging.getLogger(__name__)

SCHEMES: Final = ("kafka://", "kafkas://")
TIMESTAMPS: Final = "message.timestamp.type"
MOST_BYTES: Final = "max.message.bytes"
BATCH_OVERHEAD_BYTES: Final = 100
LOG_APPEND_TIME: Final = "LogAppendTime"
EVENT_HUBS_SUFFIX: Final = ".servicebus.windows.net"
SILENCE_S: Final = 60.0
_MECHANISMS: Final = {"plain": "PLAIN", "oauthbearer": "OAUTHBEARER"}

Token = tuple[str, float]
"""A bearer token and the epoch second at which it expires."""


class TopicMissing(BrokerUnavailable):
    """The broker answers and has no such topic."""


@dataclass(frozen=True, slots=True)
class KafkaAddress:
    """A topic, the brokers that know where it is, and whether they are spoken to over TLS."""

    brokers: str
    topic: str
    tls: bool = False

    @classmethod
    def parse(cls, url: str) -> KafkaAddress:
        """Read `kafka://host:port[,host:port...]/topic`; `kafkas://` is TLS.

        Raises:
            ConfigurationError: it is something else, or Event Hubs without TLS.
        """
        scheme, _, rest = url.partition("://")
        brokers, _, topic = rest.partition("/")
        if f"{scheme}://" not in SCHEMES or not brokers or not topic or "@" in brokers:
            raise ConfigurationError("a Kafka address is kafka://host:port[,host:port...]/topic; kafkas:// is TLS")
        tls = scheme == "kafkas"
        if not tls and any(one.partition(":")[0].endswith(EVENT_HUBS_SUFFIX) for one in brokers.split(",")):
            raise ConfigurationError("Event Hubs speaks Kafka over TLS only: write kafkas://<namespace>:9093/<hub>")
        return cls(brokers, topic, tls)

    def fix_command(self) -> str:
        """What gives the topic the broker's clock."""
        return (
            f"kafka-configs.sh --bootstrap-server {self.brokers} --alter --entity-type topics "
            f"--entity-name {self.topic} --add-config {TIMESTAMPS}={LOG_APPEND_TIME}"
        )

    def create_command(self, partition_count: int) -> str:
        """What makes the topic."""
        return (
            f"kafka-topics.sh --bootstrap-server {self.brokers} --create --topic {self.topic} "
            f"--partitions {partition_count} --config {TIMESTAMPS}={LOG_APPEND_TIME}"
        )


@dataclass(frozen=True)
class KafkaConnection:
    """Where the broker is and who we are; it makes the options that every client shares.

    `token` gets the bearer token of OAUTHBEARER when librdkafka wants one.
    """

    address: KafkaAddress
    mechanism: str | None = None
    user: str = ""
    password: str = field(default="", repr=False)
    token: Callable[[], Token] | None = None

    def options(self, **more: object) -> dict[str, Any]:
        """The configuration of a client of librdkafka, which logs through `logging`."""
        secured = "SASL_" if self.mechanism else ""
        options: dict[str, Any] = {
            "bootstrap.servers": self.address.brokers,
            "security.protocol": secured + ("SSL" if self.address.tls else "PLAINTEXT"),
            "client.id": "recommndr",
            "socket.keepalive.enable": True,
            "socket.nagle.disable": True,
            "connections.max.idle.ms": 180_000,  # Event Hubs closes what was silent for 4 minutes
            "reconnect.backoff.ms": 50,
            "reconnect.backoff.max.ms": 1000,
            "log_level": 2,  # lost connections reach error_cb and the caller: a line at every attempt helps nobody
            "logger": log,
        }
        if self.mechanism:
            options["sasl.mechanism"] = self.mechanism
        if self.mechanism == "PLAIN":
            options |= {"sasl.username": self.user, "sasl.password": self.password}
        if self.mechanism == "OAUTHBEARER":
            assert self.token is not None, "open_connection gives one"
            token = self.token
            options["oauth_cb"] = lambda _config: token()
        return options | more


class ErrorLog:
    """What librdkafka calls at every attempt that failed; each kind of error is logged once a minute at most."""

    def __init__(self, who: str, seconds: Callable[[], float] = time.monotonic) -> None:
        self._who = who
        self._seconds = seconds
        self._said_s: dict[int, float] = {}

    def __call__(self, error: KafkaError) -> None:
        """Log it, or not."""
        now = self._seconds()
        if now - self._said_s.get(error.code(), float("-inf")) >= SILENCE_S:
            self._said_s[error.code()] = now
            log.warning("%s: %s", self._who, error.str())


def open_connection(
    url: str, *, sasl: str = "none", user: str = "", password: str = "", token: Callable[[], Token] | None = None
) -> KafkaConnection:
    """The connection that the settings describe; nothing is connected yet.

    With `oauthbearer` the token is `token()`, else the fixed `password`, else the worker's identity for Event Hubs.

    Raises:
        ConfigurationError: the address is none, or what the mechanism needs is missing.
    """
    address = KafkaAddress.parse(url)
    if sasl == "none":
        return KafkaConnection(address)
    if sasl == "plain" and not (user and password):
        raise ConfigurationError("EVENT_LOG_SASL=plain needs EVENT_LOG_USER and EVENT_LOG_PASSWORD")
    if sasl == "oauthbearer" and token is None:
        token = _fixed_token(password) if password else _identity_token(address)
    return KafkaConnection(address, _MECHANISMS[sasl], user, password, token)


def connection_of(settings: Settings) -> KafkaConnection:
    """The connection to the topic that EVENT_LOG_URL names. Raises as `open_connection`."""
    return open_connection(
        settings.event_log_url,
        sasl=settings.event_log_sasl,
        user=settings.event_log_user,
        password=settings.event_log_password,
    )


def _fixed_token(text: str) -> Callable[[], Token]:
    try:
        claims = text.split(".")[1]
        expires_at = float(json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["exp"])
    except (IndexError, KeyError, TypeError, ValueError, binascii.Error) as error:
        raise ConfigurationError("EVENT_LOG_PASSWORD is no bearer token with an expiry (a JWT with exp)") from error
    return lambda: (text, expires_at)


def _identity_token(address: KafkaAddress) -> Callable[[], Token]:
    host = address.brokers.split(",")[0].partition(":")[0]
    if not host.endswith(EVENT_HUBS_SUFFIX):
        raise ConfigurationError(
            "EVENT_LOG_SASL=oauthbearer without EVENT_LOG_PASSWORD asks Azure for a token, which only Event Hubs takes"
        )
    from azure.identity import DefaultAzureCredential  # noqa: PLC0415 - takes 0.3 s that nobody else should wait

    credential = DefaultAzureCredential()

    def token() -> Token:
        found = credential.get_token(f"https://{host}/.default")
        return found.token, float(found.expires_on)

    return token


def check_topic(connection: KafkaConnection, partition_count: int, *, timeout_s: float) -> int | None:
    """Raise unless the topic is as this system needs it; return how many bytes a batch for it may have, if told.

    A broker that does not tell the topic's configuration is believed here: every record is looked at again.

    Raises:
        BrokerUnavailable: the broker does not answer; or the topic is missing, has another number of partitions or
            keeps the producer's clock, and then the message names the command.
    """
    address = connection.address
    heard: list[str] = []
    admin = AdminClient(connection.options(error_cb=lambda error: heard.append(error.str())))
    try:
        # Asked for by name, a topic may be made by the broker on the spot, with its defaults.
        found = admin.list_topics(timeout=timeout_s).topics.get(address.topic)
    except KafkaException as error:
        admin.poll(0)  # lets `heard` hear
        why = "; ".join([error.args[0].str(), *heard[:1]])
        raise BrokerUnavailable(f"Kafka at {address.brokers} does not answer: {why}") from error
    if found is None:
        raise TopicMissing(
            f"the topic {address.topic} is not at {address.brokers}: {address.create_command(partition_count)}"
        )
    if len(found.partitions) != partition_count:
        raise BrokerUnavailable(
            f"the topic {address.topic} has {len(found.partitions)} partitions and PARTITION_COUNT says "
            f"{partition_count}: set PARTITION_COUNT={len(found.partitions)}"
        )
    resource = ConfigResource(ConfigResource.Type.TOPIC, address.topic)
    try:
        entries = admin.describe_configs([resource], request_timeout=timeout_s)[resource].result(timeout_s)
    except KafkaException as error:
        log.info("%s does not tell the configuration of %s: %s", address.brokers, address.topic, error)
        return None
    clock, most = entries.get(TIMESTAMPS), entries.get(MOST_BYTES)
    if clock is not None and clock.value != LOG_APPEND_TIME:
        raise BrokerUnavailable(clock_fault(address))
    return None if most is None or not most.value else max(1, int(most.value) - BATCH_OVERHEAD_BYTES)


def clock_fault(address: KafkaAddress) -> str:
    """What to do about records that carry their producer's clock."""
    return (
        f"the topic {address.topic} keeps the producers' clock ({TIMESTAMPS} is not {LOG_APPEND_TIME}): "
        f"{address.fix_command()} ; records that are in it already keep theirs: then take a new topic"
    )


def create_topic(connection: KafkaConnection, partition_count: int, *, timeout_s: float) -> None:
    """Make the topic, with the broker's clock and its default replication.

    Raises:
        BrokerUnavailable: the broker refuses or does not answer; the message names the command.
    """
    address = connection.address
    topic = NewTopic(address.topic, num_partitions=partition_count, config={TIMESTAMPS: LOG_APPEND_TIME})
    admin = AdminClient(connection.options())  # named, so that it lives until the answer
    try:
        admin.create_topics([topic], request_timeout=timeout_s)[address.topic].result()
    except KafkaException as error:
        raise BrokerUnavailable(
            f"{address.brokers} does not make the topic {address.topic} ({error.args[0].str()}): "
            f"{address.create_command(partition_count)}"
        ) from error
