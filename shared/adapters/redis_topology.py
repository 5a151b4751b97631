"""How many servers share the keys behind one Redis address."""

from __future__ import annotations

from typing import Any

from redis import Redis


def sharing_nodes(client: Redis) -> int:
    """1 for a server that holds every key itself, more for a cluster whose nodes each hold some slots.

    Whoever speaks to one node of such a cluster is sent on for most keys (MOVED), which this client does not follow.
    A proxy that makes a cluster look like one server (Azure Managed Redis with the Enterprise clustering policy) says
    that clustering is off. Raises RedisError.
    """
    answer: Any = client.info("cluster")
    if not answer.get("cluster_enabled"):
        return 1
    untyped: Any = client
    return max(1, int(untyped.execute_command("CLUSTER INFO")["cluster_size"]))
