"""The server's log: lines on stderr, and nothing worse where nobody reads it any more."""

import os
import sys
from contextlib import suppress


def say(text: str) -> None:
    """A line of the log; a log that cannot be written stops nothing."""
    if sys.stderr is not None:
        with suppress(OSError, ValueError):
            print(f"taxonet serve: {text}", file=sys.stderr, flush=True)


def keep_descriptors() -> None:
    """Occupy what was closed of stdin, stdout and stderr, so that no socket gets one of their numbers."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
