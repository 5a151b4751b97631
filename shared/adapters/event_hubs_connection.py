"""How Event Hubs is reached: its address, who we are, and the SDK's clients with bounds that a request can bear."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from azure.core.credentials import TokenCredential
from azure.eventhub import EventHubConsumerClient, EventHubProducerClient, parse_connection_string
from azure.identity import DefaultAzureCredential

from shared.errors import ConfigurationError

SCHEME = "eventhubs://"
DEFAULT_GROUP = "$Default"
KEEP_ALIVE_S = 30
"""Well below the 4 minutes after which the service closes a silent connection."""
_BACKOFF_S = 0.05
"""The SDK pauses this long even after its last try."""

Opened = tuple[Callable[[], EventHubProducerClient], Callable[[], EventHubConsumerClient]]


@dataclass(frozen=True, slots=True)
class EventHubsAddress:
    """An event hub, and the consumer group that reads it when a gap must be refilled."""

    namespace: str
    hub: str
    consumer_group: str = DEFAULT_GROUP


def parse_address(url: str) -> EventHubsAddress:
    """Read `eventhubs://<namespace>.servicebus.windows.net/<hub>[?consumer_group=<name>]`.

    Raises:
        ConfigurationError: it is something else.
    """
    parts = urlsplit(url)
    hub = parts.path.strip("/")
    query = dict(parse_qsl(parts.query))
    group = query.pop("consumer_group", DEFAULT_GROUP)
    if not url.startswith(SCHEME) or not parts.hostname or not hub or "/" in hub or "@" in parts.netloc or query:
        raise ConfigurationError(
            "an event hub's address is eventhubs://<namespace>.servicebus.windows.net/<hub>, with "
            "?consumer_group=<name> where a group of its own refills gaps; a password goes into EVENT_LOG_PASSWORD"
        )
    return EventHubsAddress(parts.netloc, hub, group)


def client_openers(
    address: EventHubsAddress, connection_string: str | None, credential: TokenCredential | None = None
) -> Opened:
    """Functions that make producer and consumer clients; none connects before it is used.

    With a connection string that is who we are, else `credential`, by default the app's managed identity or the
    developer's own sign-in. The SDK tries once: its retries have no bound in time, so the caller's deadline decides.

    Raises:
        ConfigurationError: the connection string is none, or it is another namespace's or hub's.
    """
    bounds: dict[str, Any] = {"retry_total": 0, "retry_backoff_factor": _BACKOFF_S}
    if connection_string is not None:
        _check(connection_string, address)
        return (
            lambda: EventHubProducerClient.from_connection_string(
                connection_string, eventhub_name=address.hub, keep_alive=KEEP_ALIVE_S, **bounds
            ),
            lambda: EventHubConsumerClient.from_connection_string(
                connection_string,
                address.consumer_group,
                eventhub_name=address.hub,
                load_balancing_interval=1.0,
                **bounds,
            ),
        )
    identity = credential or DefaultAzureCredential()
    return (
        lambda: EventHubProducerClient(address.namespace, address.hub, identity, keep_alive=KEEP_ALIVE_S, **bounds),
        lambda: EventHubConsumerClient(
            address.namespace, address.hub, address.consumer_group, identity, load_balancing_interval=1.0, **bounds
        ),
    )


def _check(connection_string: str, address: EventHubsAddress) -> None:
    try:
        found = parse_connection_string(connection_string)
    except ValueError as error:
        raise ConfigurationError(
            "EVENT_LOG_PASSWORD is no connection string of Event Hubs: Endpoint=sb://<namespace>/;"
            "SharedAccessKeyName=<name>;SharedAccessKey=<key>"
        ) from error
    if found.fully_qualified_namespace.lower() != address.namespace.lower():
        raise ConfigurationError(
            f"EVENT_LOG_PASSWORD is of {found.fully_qualified_namespace}, EVENT_LOG_URL of {address.namespace}"
        )
    if found.eventhub_name and found.eventhub_name != address.hub:
        raise ConfigurationError(
            f"EVENT_LOG_PASSWORD is of the hub {found.eventhub_name}, EVENT_LOG_URL of {address.hub}"
        )
