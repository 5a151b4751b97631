"""A server on a Unix socket that cannot be reached for a while, and can again: in milliseconds, its data untouched."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from shared.adapters.redis_connection import connect


class Reach:
    """Cuts and mends. While it is cut no connection is open and none can be opened."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._socket = Path(url.removeprefix("unix://"))
        self._away = self._socket.with_suffix(".away")

    @property
    def is_cut(self) -> bool:
        return self._away.exists()

    def cut(self) -> None:
        """Take the address away and end every connection; harmless when it is cut already."""
        if not self.is_cut:
            with closing(connect(self._url, timeout_ms=5000)) as client:
                client.ping()
                self._socket.rename(self._away)
                client.client_kill_filter(_type="normal", skipme=True)

    def mend(self) -> None:
        """Give the address back; harmless when it was not cut."""
        if self.is_cut:
            self._away.rename(self._socket)

    @contextmanager
    def away(self) -> Iterator[None]:
        """Cut inside, whole again afterwards."""
        self.cut()
        try:
            yield
        finally:
            self.mend()
