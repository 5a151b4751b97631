"""Redis clients that answer or fail soon, and never send a command twice on their own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from shared.errors import ConfigurationError

Argument = bytes | str | int
"""What a command is made of."""

SCHEMES = ("unix://", "redis://", "rediss://")


def connect(url: str, *, timeout_ms: int = 1000, connect_timeout_ms: int = 500) -> Redis:
    """A client for a `unix://`, `redis://` or `rediss://` address; it connects with the first command.

    redis-py 8 sends a command again up to ten times when a connection breaks. A commit whose answer was lost must be
    judged by its mark and an append by its event id, so this client never does that: callers decide. A command without
    an answer fails after `timeout_ms`.

    Raises:
        ConfigurationError: the address is none of the three.
    """
    if not url.startswith(SCHEMES):
        scheme = url.partition("://")[0][:20]
        raise ConfigurationError(f"a Redis address starts with {', '.join(SCHEMES)}; this one starts with {scheme!r}")
    try:
        return Redis.from_url(
            url,
            socket_timeout=timeout_ms / 1000,
            socket_connect_timeout=connect_timeout_ms / 1000,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            decode_responses=False,
        )
    except ValueError as error:
        raise ConfigurationError(f"the Redis address cannot be read: {error}") from error


def send_pipelined(
    client: Redis, commands: Iterable[tuple[Argument, ...]], *, raise_on_error: bool = True
) -> list[Any]:
    """Send commands (name, arguments...) in one trip, not as a transaction, and return the answers in order."""
    pipeline: Any = client.pipeline(transaction=False)
    for command in commands:
        pipeline.execute_command(*command)
    answers: list[Any] = pipeline.execute(raise_on_error=raise_on_error)
    return answers


def eviction_policy(client: Redis) -> str | None:
    """The server's maxmemory-policy, which must be noeviction; None when it does not tell. Raises RedisError."""
    answer: Any = client.info("memory")
    policy: str | None = answer.get("maxmemory_policy")
    return policy
