"""The settings: one frozen object, read once from the environment in the composition root.

The class below is the one table of them: name, default, what it is for. Documentation, local.settings.json.example and
the app settings on Azure are held equal to it by tests.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, Self

from shared.errors import ConfigurationError

SECRET_DEFAULT = "recommndr-on-this-machine"  # noqa: S105 - names itself as no secret; Azure sets a real one
_REDIS_SCHEMES = ("unix://", "redis://", "rediss://")
_SASL = ("none", "plain", "oauthbearer")
_LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


def _text(value: str) -> str:
    return value


def _redis_url(value: str) -> str:
    if not value.startswith(_REDIS_SCHEMES):
        raise ValueError(f"must start with one of {', '.join(_REDIS_SCHEMES)}")
    return value


def _event_log_url(value: str) -> str:
    if value.startswith(_REDIS_SCHEMES):
        return value
    if re.fullmatch(r"kafkas?://[\w.-]+:\d{1,5}(,[\w.-]+:\d{1,5})*/[\w.-]{1,249}", value, re.ASCII):
        return value
    if re.fullmatch(r"eventhubs://[\w.-]+/[^/@\s]+", value, re.ASCII):
        return value
    raise ValueError(
        f"must start with one of {', '.join(_REDIS_SCHEMES)}, or be kafka://<host>:<port>/<topic> (kafkas:// over "
        "TLS), or eventhubs://<namespace>.servicebus.windows.net/<hub>"
    )


def _sasl(value: str) -> str:
    if value.lower() not in _SASL:
        raise ValueError(f"must be one of {', '.join(_SASL)}")
    return value.lower()


def _blob_url(value: str) -> str:
    scheme, separator, rest = value.partition("://")
    emulator = scheme == "http" and re.match(r"(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?/", rest) is not None
    if separator and scheme != "https" and not emulator:
        raise ValueError(
            "must be the path of a folder, https://<account>.blob.core.windows.net/<container>, or the emulator's "
            "http://127.0.0.1:<port>/<account>/<container>"
        )
    if separator and len([part for part in rest.split("/") if part]) < (3 if emulator else 2):
        raise ValueError("must name a container after the account")
    return value


def _source(value: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,62}", value):
        raise ValueError("must be lower-case letters, digits and hyphens, 63 at most, and begin with no hyphen")
    return value


def _secret(value: str) -> str:
    if len(value) < 16:
        raise ValueError("must have at least 16 characters")
    return value


def _producers(value: str) -> str:
    if value.lower() not in {"ours", "foreign"}:
        raise ValueError("must be ours or foreign")
    return value.lower()


def _log_level(value: str) -> str:
    if value.upper() not in _LOG_LEVELS:
        raise ValueError(f"must be one of {', '.join(_LOG_LEVELS)}")
    return value.upper()


def _log_format(value: str) -> str:
    if value.lower() not in {"json", "text"}:
        raise ValueError("must be json or text")
    return value.lower()


def _origins(value: str) -> tuple[str, ...]:
    origins = tuple(part.strip().rstrip("/") for part in value.split(",") if part.strip())
    for origin in origins:
        if not re.fullmatch(r"https?://[^/\s]+", origin):
            raise ValueError(f"holds {origin!r}, which is no origin such as https://shop.example")
    return origins


def _on_or_off(value: str) -> bool:
    if value.lower() not in {"on", "off"}:
        raise ValueError("must be on or off")
    return value.lower() == "on"


def _key_digests(value: str) -> tuple[bytes, ...]:
    """SHA-256 digests; the keys themselves are forgotten here."""
    digests = []
    for part in filter(None, map(str.strip, value.split(","))):
        if part.startswith("sha256:"):
            if not re.fullmatch(r"sha256:[0-9a-fA-F]{64}", part):
                raise ValueError("holds sha256: without 64 hexadecimal digits after it")
            digests.append(bytes.fromhex(part.removeprefix("sha256:")))
        elif len(part) < 20:
            raise ValueError("holds a key of fewer than 20 characters")
        else:
            digests.append(hashlib.sha256(part.encode()).digest())
    return tuple(digests)


def _jwks(value: str) -> str:
    if "://" in value and not re.match(r"https://|http://(localhost|127\.0\.0\.1|\[::1\])[:/]", value):
        raise ValueError("must be the path of a file or an https:// address")
    return value


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(value: str) -> int:
        if not re.fullmatch(r"-?\d{1,18}", value) or not low <= int(value) <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return int(value)

    return parse


def _share(value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 <= number <= 1:
        raise ValueError("must be a number from 0 to 1")
    return number


def _setting(name: str, default: str, description: str, parse: Callable[[str], Any] = _text) -> Any:  # noqa: ANN401 - as dataclasses.field
    return field(default=parse(default), metadata={"name": name, "text": default, "about": description, "parse": parse})


@dataclass(frozen=True, kw_only=True, repr=False)
class Settings:
    """Every setting, parsed. Without an environment it holds the defaults, which fit one machine."""

    redis_url: str = _setting(
        "REDIS_URL",
        "redis://localhost:6379/0",
        "Redis that holds feature state and releases",
        _redis_url,
    )
    event_log_url: str = _setting(
        "EVENT_LOG_URL",
        "redis://localhost:6380/0",
        "The broker log: Redis that holds the embedded one, kafka://host:port/topic (kafkas:// over TLS), "
        "or eventhubs://namespace/hub",
        _event_log_url,
    )
    event_log_sasl: str = _setting(
        "EVENT_LOG_SASL", "none", "How Kafka asks who we are: none, plain or oauthbearer", _sasl
    )
    event_log_user: str = _setting(
        "EVENT_LOG_USER", "", "User name for plain; Event Hubs' Kafka endpoint wants $ConnectionString"
    )
    event_log_password: str = _setting(
        "EVENT_LOG_PASSWORD",
        "",
        "Password for plain, or the connection string of Event Hubs; for oauthbearer a fixed token, and where it is "
        "empty the worker's identity gets one",
    )
    blob_url: str = _setting(
        "BLOB_URL",
        ".recommndr/data",
        "Lake and releases: a folder, or a blob container at https",
        _blob_url,
    )
    blob_connection: str = _setting(
        "BLOB_CONNECTION", "", "Connection string of the blob emulator on this machine; Azure asks for the identity"
    )
    event_source: str = _setting("EVENT_SOURCE", "live-1", "Name of the live stream in its present epoch", _source)
    partition_count: int = _setting("PARTITION_COUNT", "4", "Partitions of the live stream", _whole(1, 1024))
    event_producers: str = _setting(
        "EVENT_PRODUCERS",
        "ours",
        "Who chooses a shopper's partition: ours (all by our hash) or foreign (by any key or none: all are read)",
        _producers,
    )
    event_hub_name: str = _setting("EVENT_HUB_NAME", "events", "Event hub that triggers process_events")
    user_key_secret: str = _setting(
        "USER_KEY_SECRET", SECRET_DEFAULT, "Keys the hash that stands for a user in Redis; never change it", _secret
    )
    exposure_sampling: float = _setting("EXPOSURE_SAMPLING", "1.0", "Share of pages written to exposure files", _share)
    exploration: float = _setting(
        "EXPLORATION",
        "0.05",
        "Budget of exploration: the share of pages of which one place goes to a new arrival at random",
        _share,
    )
    item_poll_ms: int = _setting(
        "ITEM_POLL_MS", "200", "Pause between two looks at what changed in the items", _whole(10, 60_000)
    )
    allocation_poll_ms: int = _setting(
        "ALLOCATION_POLL_MS", "1000", "Pause between two looks at which releases are live", _whole(10, 600_000)
    )
    redis_timeout_ms: int = _setting(
        "REDIS_TIMEOUT_MS", "250", "Longest wait of a page for one answer of Redis", _whole(10, 60_000)
    )
    event_log_timeout_ms: int = _setting(
        "EVENT_LOG_TIMEOUT_MS", "1000", "Longest wait of POST /events for the broker log", _whole(10, 60_000)
    )
    max_body_bytes: int = _setting("MAX_BODY_BYTES", "1048576", "Largest request body", _whole(1024, 100 * 1024**2))
    cors_origins: tuple[str, ...] = _setting(
        "CORS_ORIGINS", "", "Origins, comma-separated, whose pages may call the API", _origins
    )
    auth: bool = _setting(
        "AUTH", "off", "Whether callers must prove who they are: on or off (docs/access.md)", _on_or_off
    )
    auth_jwks: str = _setting(
        "AUTH_JWKS", "", "Public keys of shoppers' tokens: path or https address of a JSON Web Key Set", _jwks
    )
    auth_issuer: str = _setting("AUTH_ISSUER", "", "The iss that a token must have")
    auth_audience: str = _setting("AUTH_AUDIENCE", "", "The aud that a token must have")
    auth_roles_claim: str = _setting(
        "AUTH_ROLES_CLAIM", "roles", "The claim in which a token may say service or operator"
    )
    auth_leeway_s: int = _setting(
        "AUTH_LEEWAY_S", "30", "How far the clock of a token's issuer may differ from ours", _whole(0, 600)
    )
    service_keys: tuple[bytes, ...] = _setting(
        "SERVICE_KEYS",
        "",
        "Keys of the shop's back end, comma-separated: each as sha256:<hex of its hash>, or plain",
        _key_digests,
    )
    operator_keys: tuple[bytes, ...] = _setting(
        "OPERATOR_KEYS", "", "Keys of operators, written as SERVICE_KEYS are", _key_digests
    )
    rate_per_key: int = _setting(
        "RATE_PER_KEY", "0", "Requests a minute that each key may make of one worker; 0 is no limit", _whole(0, 10**7)
    )
    rate_per_address: int = _setting(
        "RATE_PER_ADDRESS",
        "0",
        "Requests a minute that each address without a key may make of one worker; 0 is no limit",
        _whole(0, 10**7),
    )
    trusted_proxies: int = _setting(
        "TRUSTED_PROXIES",
        "0",
        "Proxies in front of the workers that add to X-Forwarded-For; on Azure 1 or more",
        _whole(0, 10),
    )
    max_header_bytes: int = _setting(
        "MAX_HEADER_BYTES", "16384", "Largest sum of a request's headers", _whole(1024, 1024**2)
    )
    read_timeout_ms: int = _setting(
        "READ_TIMEOUT_MS", "10000", "Longest wait for a request's headers, and then for its body", _whole(50, 600_000)
    )
    request_timeout_ms: int = _setting(
        "REQUEST_TIMEOUT_MS", "15000", "Longest time to answer a request that has arrived", _whole(50, 600_000)
    )
    mlflow_tracking_uri: str = _setting(
        "MLFLOW_TRACKING_URI", "", "Where nightly runs are tracked; empty is mlflow.db in the data folder"
    )
    log_level: str = _setting("LOG_LEVEL", "INFO", "Least severe log messages to write", _log_level)
    log_format: str = _setting(
        "LOG_FORMAT", "json", "How log lines are written: json (one object a line) or text", _log_format
    )

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Self:
        """Read every setting; an absent or empty one takes its default.

        Raises:
            ConfigurationError: a value makes no sense; the message names the setting and what it takes.
        """
        values: dict[str, Any] = {}
        for each in fields(cls):
            text = environ.get(each.metadata["name"], "").strip()
            if text:
                values[each.name] = _parsed(each, text)
        return cls(**values)

    def __repr__(self) -> str:
        """Without the secret and the passwords that addresses may carry."""
        hidden = {
            "user_key_secret", "redis_url", "event_log_url", "event_log_password", "blob_connection", "service_keys",
            "operator_keys",
        }  # fmt: skip
        shown = (f"{each.name}={getattr(self, each.name)!r}" for each in fields(self) if each.name not in hidden)
        return f"Settings({', '.join(shown)})"


@dataclass(frozen=True, slots=True)
class SettingDescription:
    """One line of the table of settings."""

    name: str
    default: str
    about: str


def described_settings() -> tuple[SettingDescription, ...]:
    """The table: every setting with its default as it would be written in the environment."""
    found = []
    for each in fields(Settings):
        assert each.default is not MISSING, "every setting has a default"
        found.append(SettingDescription(each.metadata["name"], each.metadata["text"], each.metadata["about"]))
    return tuple(found)


def _parsed(each: Field[Any], text: str) -> object:
    try:
        return each.metadata["parse"](text)
    except ValueError as error:
        secret = each.metadata["name"].endswith(("SECRET", "PASSWORD", "KEYS")) or "://" in text
        shown = "its value" if secret else repr(text[:80])
        raise ConfigurationError(
            f"{each.metadata['name']} {error}, and {shown} is not that ({each.metadata['about']})"
        ) from error
