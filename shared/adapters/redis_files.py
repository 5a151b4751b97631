"""A server's own append-only file, which keeps what was deleted until the server writes it anew."""

from __future__ import annotations

import time
from typing import Any, Final

from redis import Redis
from redis.exceptions import RedisError, ResponseError

from shared.errors import InfrastructureFault

_PAUSE_S: Final = 0.05


def rewrite_append_only_file(client: Redis, patience_s: float) -> bool:
    """Have the server write its append-only file anew, from what it holds now; True when that is done.

    True also where it keeps none, False where the server lets nobody ask for it, as managed ones do.
    Raises InfrastructureFault when it does not answer, or does not end within `patience_s`.
    """
    untyped: Any = client
    try:
        if not untyped.info("persistence").get("aof_enabled"):
            return True
        _wait(untyped, patience_s)  # one that began before does not count
        try:
            untyped.bgrewriteaof()
        except ResponseError:
            return False
        _wait(untyped, patience_s)
        return bool(untyped.info("persistence")["aof_last_bgrewrite_status"] == "ok")
    except RedisError as error:
        raise InfrastructureFault(f"the append-only file was not rewritten: {error}") from error


def _wait(client: Any, patience_s: float) -> None:  # noqa: ANN401 - redis-py types its answers for two protocols
    deadline = time.monotonic() + patience_s
    while True:
        said = client.info("persistence")
        if not said["aof_rewrite_in_progress"] and not said["aof_rewrite_scheduled"]:
            return
        if time.monotonic() > deadline:
            raise InfrastructureFault(f"the server rewrites its append-only file for more than {patience_s:g} s")
        time.sleep(_PAUSE_S)
