"""The broker log of the settings; what picks it stands in shared, as local.replay needs it too."""

from __future__ import annotations

from shared.adapters.broker import Broker, open_broker

__all__ = ["Broker", "open_broker"]
