"""What a worker counts, for Prometheus. One registry a worker's services, so that tests do not share counters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Metrics:
    """Every metric of the online side."""

    def __init__(self) -> None:
        """All at zero."""
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "recommndr_http_requests", "Requests by route and status", ["route", "status"], registry=self.registry
        )
        self.request_seconds = Histogram(
            "recommndr_http_request_seconds",
            "Time to answer, by route",
            ["route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.pages = Counter("recommndr_pages", "Pages by release", ["release"], registry=self.registry)
        self.fallbacks = Counter("recommndr_fallbacks", "Pages by cause of fallback", ["cause"], registry=self.registry)
        self.candidates = Histogram(
            "recommndr_candidates",
            "Candidates ranked for a page",
            buckets=(0, 50, 100, 200, 300, 400, 600),
            registry=self.registry,
        )
        self.events = Counter("recommndr_events", "Events posted, by outcome", ["outcome"], registry=self.registry)
        self.folded = Counter("recommndr_records", "Records handed to the fold", registry=self.registry)
        self.sealed = Counter("recommndr_sealed_rows", "Landing rows written to the lake", registry=self.registry)
        self.open_erasures = Gauge("recommndr_open_erasures", "Erasures not done everywhere", registry=self.registry)
        self.exposures = Counter(
            "recommndr_exposures", "Exposures by fate: written, lost", ["fate"], registry=self.registry
        )
        self.releases = Counter(
            "recommndr_release_loads", "Releases by outcome of their load", ["outcome"], registry=self.registry
        )
        self.broken_versions = Counter(
            "recommndr_broken_state_versions", "State versions this worker gave up folding", registry=self.registry
        )
        self.faults = Counter(
            "recommndr_infrastructure_faults", "Calls that a server did not answer", ["server"], registry=self.registry
        )

    def age_gauge(self, name: str, description: str, value: Callable[[], float]) -> None:
        """A gauge that is asked when it is scraped."""
        Gauge(name, description, registry=self.registry).set_function(value)

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)
