"""The settings: defaults, every one changed once, nonsense refused with a message that names the setting."""

from __future__ import annotations

import json
from dataclasses import fields
from hashlib import sha256
from pathlib import Path

import pytest

from shared.errors import ConfigurationError
from shared.settings import SECRET_DEFAULT, Settings, described_settings

ROOT = Path(__file__).resolve().parents[2]

CHANGED: dict[str, tuple[str, object]] = {
    "REDIS_URL": ("rediss://cache.example:10000", "rediss://cache.example:10000"),
    "EVENT_LOG_URL": ("kafkas://broker.example:9093,two:9093/events", "kafkas://broker.example:9093,two:9093/events"),
    "EVENT_LOG_SASL": ("OAuthBearer", "oauthbearer"),
    "EVENT_LOG_USER": ("$ConnectionString", "$ConnectionString"),
    "EVENT_LOG_PASSWORD": ("Endpoint=sb://shop", "Endpoint=sb://shop"),
    "BLOB_URL": ("https://shop.blob.core.windows.net/lake", "https://shop.blob.core.windows.net/lake"),
    "BLOB_CONNECTION": ("AccountName=devstoreaccount1;AccountKey=a2V5", "AccountName=devstoreaccount1;AccountKey=a2V5"),
    "EVENT_SOURCE": ("live-2", "live-2"),
    "PARTITION_COUNT": ("16", 16),
    "EVENT_PRODUCERS": ("Foreign", "foreign"),
    "EVENT_HUB_NAME": ("clicks", "clicks"),
    "USER_KEY_SECRET": ("0123456789abcdef", "0123456789abcdef"),
    "EXPOSURE_SAMPLING": ("0.25", 0.25),
    "EXPLORATION": ("0", 0.0),
    "ITEM_POLL_MS": ("50", 50),
    "ALLOCATION_POLL_MS": ("5000", 5000),
    "REDIS_TIMEOUT_MS": ("100", 100),
    "EVENT_LOG_TIMEOUT_MS": ("2000", 2000),
    "MAX_BODY_BYTES": ("4096", 4096),
    "CORS_ORIGINS": ("https://a.example, http://localhost:3000/", ("https://a.example", "http://localhost:3000")),
    "AUTH": ("On", True),
    "AUTH_JWKS": ("https://login.example/keys", "https://login.example/keys"),
    "AUTH_ISSUER": ("https://login.example/", "https://login.example/"),
    "AUTH_AUDIENCE": ("shop", "shop"),
    "AUTH_ROLES_CLAIM": ("https://shop.example/roles", "https://shop.example/roles"),
    "AUTH_LEEWAY_S": ("0", 0),
    "SERVICE_KEYS": (f"{'k' * 20}, sha256:{'AB' * 32}", (sha256(b"k" * 20).digest(), b"\xab" * 32)),
    "OPERATOR_KEYS": ("o" * 40, (sha256(b"o" * 40).digest(),)),
    "RATE_PER_KEY": ("6000", 6000),
    "RATE_PER_ADDRESS": ("600", 600),
    "TRUSTED_PROXIES": ("2", 2),
    "MAX_HEADER_BYTES": ("8192", 8192),
    "READ_TIMEOUT_MS": ("2000", 2000),
    "REQUEST_TIMEOUT_MS": ("5000", 5000),
    "LOG_FORMAT": ("Text", "text"),
    "MLFLOW_TRACKING_URI": ("http://mlflow.example", "http://mlflow.example"),
    "LOG_LEVEL": ("debug", "DEBUG"),
}

NONSENSE = [
    ("REDIS_URL", "localhost"),
    ("EVENT_LOG_URL", "http://log"),
    ("EVENT_LOG_URL", "kafka://broker/events"),
    ("EVENT_LOG_URL", "kafka://broker:9092"),
    ("EVENT_LOG_URL", "kafka://user:hunter2@broker:9092/events"),
    ("EVENT_LOG_URL", "eventhubs://shop.servicebus.windows.net"),
    ("EVENT_LOG_SASL", "scram"),
    ("BLOB_URL", "ftp://files/lake"),
    ("BLOB_URL", "https://shop.blob.core.windows.net"),
    ("BLOB_URL", "http://shop.blob.core.windows.net/lake"),
    ("BLOB_URL", "http://127.0.0.1:10000/devstoreaccount1"),
    ("BLOB_URL", "http://localhost.evil.example/account/lake"),
    ("EVENT_SOURCE", "Live 1"),
    ("PARTITION_COUNT", "0"),
    ("EVENT_PRODUCERS", "both"),
    ("PARTITION_COUNT", "4.5"),
    ("USER_KEY_SECRET", "short"),
    ("EXPOSURE_SAMPLING", "1.5"),
    ("EXPLORATION", "nan"),
    ("EXPLORATION", "five"),
    ("ITEM_POLL_MS", "-1"),
    ("ALLOCATION_POLL_MS", "1"),
    ("REDIS_TIMEOUT_MS", "soon"),
    ("EVENT_LOG_TIMEOUT_MS", "9999999"),
    ("MAX_BODY_BYTES", "1"),
    ("CORS_ORIGINS", "*"),
    ("AUTH", "yes"),
    ("AUTH_JWKS", "http://login.example/keys"),
    ("AUTH_LEEWAY_S", "3600"),
    ("SERVICE_KEYS", "short"),
    ("OPERATOR_KEYS", "sha256:abc"),
    ("RATE_PER_KEY", "-1"),
    ("RATE_PER_ADDRESS", "many"),
    ("TRUSTED_PROXIES", "all"),
    ("MAX_HEADER_BYTES", "1"),
    ("READ_TIMEOUT_MS", "0"),
    ("REQUEST_TIMEOUT_MS", "0"),
    ("LOG_FORMAT", "xml"),
    ("LOG_LEVEL", "LOUD"),
]


def test_every_setting_takes_its_value_from_its_variable() -> None:
    assert set(CHANGED) == {one.name for one in described_settings()}
    settings = Settings.from_environment({name: text for name, (text, _) in CHANGED.items()})
    attributes = {each.metadata["name"]: each.name for each in fields(Settings)}
    for name, (_, expected) in CHANGED.items():
        held = getattr(settings, attributes[name])
        assert held == expected
        assert held != getattr(Settings(), attributes[name])


@pytest.mark.parametrize(
    "url",
    [
        "redis://log:6380/0",
        "rediss://log:6380",
        "unix:///run/log.sock",
        "kafka://localhost:9092/events",
        "kafka://a:9092,b.example:9093/shop.events-1",
        "eventhubs://shop.servicebus.windows.net/events",
        "eventhubs://shop.servicebus.windows.net/events?consumer_group=gaps",
    ],
)
def test_a_broker_log_is_redis_kafka_or_event_hubs(url: str) -> None:
    assert Settings.from_environment({"EVENT_LOG_URL": url}).event_log_url == url


def test_without_an_environment_the_defaults_hold() -> None:
    assert Settings.from_environment({}) == Settings()
    assert Settings.from_environment({"REDIS_URL": "  ", "PATH": "x"}) == Settings()
    defaults = {one.name: one.default for one in described_settings()}
    assert Settings.from_environment(defaults) == Settings()


@pytest.mark.parametrize(("name", "text"), NONSENSE)
def test_nonsense_is_refused_and_named(name: str, text: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{name} "):
        Settings.from_environment({name: text})


def test_no_message_and_no_text_form_tells_a_secret() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_environment({"USER_KEY_SECRET": "hunter2"})
    assert "hunter2" not in str(caught.value)
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_environment({"REDIS_URL": "https://:hunter2@cache"})
    assert "hunter2" not in str(caught.value)
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_environment({"SERVICE_KEYS": "k" * 30 + ",hunter2"})
    assert "hunter2" not in str(caught.value)
    settings = Settings.from_environment(
        {
            "REDIS_URL": "redis://:hunter2@cache",
            "USER_KEY_SECRET": "x" * 20,
            "EVENT_LOG_PASSWORD": "hunter2",
            "BLOB_CONNECTION": "AccountKey=hunter2",
            "SERVICE_KEYS": "k" * 20,
        }
    )
    assert "service_keys" not in repr(settings)
    assert "hunter2" not in repr(settings)
    assert "x" * 20 not in repr(settings)
    assert "live-1" in repr(settings)


def test_the_example_of_local_settings_holds_every_setting_at_its_default() -> None:
    values = json.loads((ROOT / "local.settings.json.example").read_text(encoding="utf-8"))["Values"]
    hosts_own = {"FUNCTIONS_WORKER_RUNTIME", "AzureWebJobsStorage", "EVENT_HUB"}
    assert {name: text for name, text in values.items() if name not in hosts_own} == {
        one.name: one.default for one in described_settings()
    }
    assert hosts_own <= set(values)
    assert values["USER_KEY_SECRET"] == SECRET_DEFAULT


def test_every_setting_says_what_it_is_for() -> None:
    described = described_settings()
    assert len(described) <= 40
    assert all(one.name == one.name.upper() and len(one.about) > 15 for one in described)
