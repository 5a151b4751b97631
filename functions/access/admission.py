"""Whether a request may come in now: each key is counted by itself, everyone else by address."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from starlette.types import Scope

from functions.access.caller import CALLER
from functions.access.client_address import client_network
from functions.access.identification import Identification
from functions.access.rate_limit import BURST_S, Decision, RateLimit
from shared.settings import Settings

EXEMPT: Final = frozenset({"/health/live", "/health/ready"})
"""Answered whatever the limits say, so that whoever watches the process always can."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """A decision and the policy it was made by: `key` or `address`."""

    policy: str
    decision: Decision

    def headers(self) -> dict[str, str]:
        """As draft-ietf-httpapi-ratelimit-headers writes them."""
        decision = self.decision
        wait_s = math.ceil(decision.retry_after_s)
        told = {
            "RateLimit-Policy": f'"{self.policy}";q={decision.capacity};w={BURST_S}',
            "RateLimit": f'"{self.policy}";r={decision.remaining}' + (f";t={wait_s}" if wait_s else ""),
        }
        return told if decision.allowed else {**told, "Retry-After": str(max(1, wait_s))}


class Admission:
    """Counts requests of this worker. A shopper's token is counted by its address, as anyone without a key is."""

    def __init__(self, settings: Settings, identification: Identification | None, seconds: Callable[[], float]) -> None:
        """`seconds` is a monotonic clock."""
        self._by_key = RateLimit(settings.rate_per_key) if settings.rate_per_key else None
        self._by_address = RateLimit(settings.rate_per_address) if settings.rate_per_address else None
        self._proxies = settings.trusted_proxies
        self._identification = identification
        self._seconds = seconds

    def decide(self, scope: Scope) -> Admitted | None:
        """Count the request; None where no limit is set for it. A caller found by key is left in the scope."""
        if self._by_key is None and self._by_address is None:
            return None
        if scope["path"] in EXEMPT:
            return None
        caller = None if self._identification is None else self._identification.by_key(scope["headers"])
        if caller is not None:
            scope[CALLER] = caller
            if self._by_key is None:
                return None
            return Admitted("key", self._by_key.take(caller.counted_as, self._seconds()))
        if self._by_address is None:
            return None
        return Admitted("address", self._by_address.take(client_network(scope, self._proxies), self._seconds()))
