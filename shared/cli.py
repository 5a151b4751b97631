"""What every command line shares: a deliberate error is one line and exit code 2, Ctrl-C is 130."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import wraps

from shared.errors import RecommndrError

type Main = Callable[[Sequence[str] | None], int]
"""A command: its arguments without the program's name (None: those of the process) to its exit code."""


def command(body: Main) -> Callable[..., int]:
    """Wrap a command's body so that it returns an exit code and never shows a stack trace for a deliberate error.

    0 is fine, 2 is bad arguments or input (one line on stderr says what to do next), 130 is Ctrl-C. Any other
    exception is a defect and goes through with its trace.
    """

    @wraps(body)
    def main(argv: Sequence[str] | None = None) -> int:
        try:
            return body(argv)
        except RecommndrError as error:
            sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
            return 2
        except KeyboardInterrupt:
            sys.stderr.write("stopped; run the command again to finish\n")
            return 130
        except SystemExit as stop:  # argparse leaves this way, after its own message
            return stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 2

    return main
