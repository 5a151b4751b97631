"""Kafka without a broker: what an address and the settings mean, who we say we are, and what nobody imports unasked."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from types import SimpleNamespace

import azure.identity
import pytest
from confluent_kafka import KafkaError

from local.kafka_serving import kafka_environment
from shared.adapters.kafka_connection import ErrorLog, KafkaAddress, connection_of, open_connection
from shared.errors import ConfigurationError
from shared.settings import Settings

HUB = "kafkas://shop.servicebus.windows.net:9093/events"


def bearer(claims: dict[str, object]) -> str:
    part = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"e30.{part}.c2ln"


def test_an_address_names_brokers_topic_and_tls() -> None:
    assert KafkaAddress.parse("kafka://a:9092,b:9093/shop.events") == KafkaAddress("a:9092,b:9093", "shop.events")
    assert KafkaAddress.parse(HUB) == KafkaAddress("shop.servicebus.windows.net:9093", "events", tls=True)


@pytest.mark.parametrize(
    "url",
    ["redis://a:1/x", "kafka://a:9092", "kafka:///events", "kafka://ann:pw@a:9092/x", HUB.replace("kafkas", "kafka")],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError):
        KafkaAddress.parse(url)


@pytest.mark.parametrize(
    ("url", "sasl", "protocol"),
    [
        ("kafka://a:9092/x", "none", "PLAINTEXT"),
        ("kafkas://a:9092/x", "none", "SSL"),
        ("kafka://a:9092/x", "plain", "SASL_PLAINTEXT"),
        (HUB, "plain", "SASL_SSL"),
    ],
)
def test_the_settings_become_librdkafkas_options(url: str, sasl: str, protocol: str) -> None:
    environment = {"EVENT_LOG_URL": url, "EVENT_LOG_SASL": sasl}
    environment |= {"EVENT_LOG_USER": "$ConnectionString", "EVENT_LOG_PASSWORD": "Endpoint=sb://shop"}
    connection = connection_of(Settings.from_environment(environment))
    options = connection.options(acks="all")
    assert options["security.protocol"] == protocol
    assert options["acks"] == "all"
    assert options.get("sasl.mechanism") == (None if sasl == "none" else "PLAIN")
    assert options.get("sasl.password") == (None if sasl == "none" else "Endpoint=sb://shop")
    assert "Endpoint" not in repr(connection)


def test_what_a_mechanism_needs_is_asked_for() -> None:
    with pytest.raises(ConfigurationError, match="EVENT_LOG_USER"):
        open_connection(HUB, sasl="plain", password="x")
    with pytest.raises(ConfigurationError, match="only Event Hubs"):
        open_connection("kafka://a:9092/x", sasl="oauthbearer")
    for text in ("opaque", bearer({"sub": "ann"}), "a.b.c"):
        with pytest.raises(ConfigurationError, match="expiry") as caught:
            open_connection(HUB, sasl="oauthbearer", password=text)
        assert text not in str(caught.value)


def test_a_fixed_token_carries_its_own_expiry() -> None:
    text = bearer({"sub": "ann", "exp": 1_900_000_000})
    token = open_connection(HUB, sasl="oauthbearer", password=text).options()["oauth_cb"]
    assert token("") == (text, 1_900_000_000.0)


def test_the_workers_identity_gets_a_token_for_the_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    scopes: list[str] = []

    class Identity:
        def get_token(self, scope: str) -> SimpleNamespace:
            scopes.append(scope)
            return SimpleNamespace(token="t", expires_on=1_900_000_000)

    monkeypatch.setattr(azure.identity, "DefaultAzureCredential", Identity)
    token = open_connection(HUB, sasl="oauthbearer").options()["oauth_cb"]
    assert token("") == ("t", 1_900_000_000.0)
    assert scopes == ["https://shop.servicebus.windows.net/.default"]


def test_an_error_that_repeats_is_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    now_s = [0.0]
    told = ErrorLog("reader", seconds=lambda: now_s[0])
    for second in range(0, 130, 10):
        now_s[0] = float(second)
        told(KafkaError(KafkaError._TRANSPORT))
    told(KafkaError(KafkaError._ALL_BROKERS_DOWN))
    assert len(caplog.records) == 3 + 1


def test_serving_over_a_topic_names_its_source_unless_it_is_named() -> None:
    assert kafka_environment("kafka://a:9092", {}) == {
        "EVENT_LOG_URL": "kafka://a:9092/events",
        "EVENT_SOURCE": "kafka-events",
    }
    named = kafka_environment("kafkas://a:1,b:2/Shop.Events_1", {})
    assert named == {"EVENT_LOG_URL": "kafkas://a:1,b:2/Shop.Events_1", "EVENT_SOURCE": "kafka-shop-events-1"}
    Settings.from_environment(named)
    assert kafka_environment("kafka://a:1/x", {"EVENT_SOURCE": "live-7"})["EVENT_SOURCE"] == "live-7"
    with pytest.raises(ConfigurationError, match="kafka://host:port"):
        kafka_environment("localhost:9092", {})


def test_nobody_imports_kafkas_client_who_did_not_ask_for_kafka() -> None:
    script = (
        "import sys; from functions.bootstrap import compose; from shared.settings import Settings\n"
        "import local.serve, function_app\n"
        "compose(Settings()).close()\n"
        "asked = ('confluent_kafka', 'azure.eventhub')\n"
        "sys.exit(','.join(name for name in sys.modules if name.startswith(asked)) or 0)"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
