"""One night at a time per data folder: the second one is told so, and the lock ends with its process."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from shared.errors import ConfigurationError

LOCK_NAME: Final = "nightly.lock"


@contextmanager
def one_night(data: Path) -> Iterator[None]:
    """Hold the folder's night; raises ConfigurationError when there is no folder, or a night runs on it already."""
    try:
        file = (data / LOCK_NAME).open("ab")
    except OSError as error:
        raise ConfigurationError(
            f"cannot write into {data} ({error.strerror}); give the folder of a shop with --data"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigurationError(f"a night runs on {data} already; wait for it, or end it first") from error
        yield
