"""Which address a request comes from, believing no more of its headers than the trusted proxies wrote."""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import Final

from starlette.types import Scope

UNKNOWN: Final = "unknown"
IPV6_NETWORK_BITS: Final = 64
"""What one customer of a provider gets: whoever has it has 2^64 addresses."""


def client_network(scope: Scope, trusted_proxies: int) -> str:
    """The client's IPv4 address, or its IPv6 network of 64 bits; "unknown" where nothing tells.

    Each trusted proxy has added the address it was called from at the right end of X-Forwarded-For, so with n of them
    the n-th from the right is the client's; what stands further left the client may have written itself.
    """
    if trusted_proxies:
        forwarded = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for")
        hops = forwarded.rsplit(b",", trusted_proxies)[-trusted_proxies:] if forwarded else []
        if len(hops) == trusted_proxies:
            return network_of(hops[0].decode("latin-1"))
    client = scope.get("client")
    return network_of(client[0]) if client else UNKNOWN


@lru_cache(maxsize=4096)
def network_of(address: str) -> str:
    """The address as it is counted; a port, as some proxies add, is dropped."""
    text = address.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return UNKNOWN
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((int(found), IPV6_NETWORK_BITS), strict=False))
    return str(found)
