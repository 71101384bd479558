"""NNCF as a guest: it sends nothing, prints nothing on stdout, shows its progress in our bar and has an end."""

import importlib
import io
import logging
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from types import SimpleNamespace
from typing import Any, TypeVar
from unittest.mock import patch

from taxonet.console import Listener
from taxonet.errors import UsageError
from taxonet.inference.engines.libraries import import_openvino

T = TypeVar("T")


class OutOfTimeError(Exception):
    """NNCF has not finished within the seconds that it was given."""


class _NothingSent:
    """Takes the place of NNCF's sender of usage figures, where somebody imported NNCF before us."""

    def start_session(self, *_: Any, **__: Any) -> None:
        """Begin nothing."""

    send_event = end_session = start_session


@contextmanager
def quiet_nncf(listener: Listener, seconds: float = float("inf")) -> Iterator[Any]:
    """The module `nncf` for the block.

    Args:
        listener: is shown the outermost of NNCF's progress bars.
        seconds: after which NNCF is stopped at its next step.

    Raises:
        UsageError: NNCF is not installed.
        OutOfTimeError: the seconds are over.
    """
    nncf = import_nncf()
    state = SimpleNamespace(listener=listener, depth=0, end=time.monotonic() + seconds)
    decorator, bars = (
        importlib.import_module(name) for name in ("nncf.telemetry.decorator", "nncf.common.logging.track_progress")
    )
    logger = logging.getLogger("nncf")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with (
            redirect_stdout(io.StringIO()),
            patch.object(decorator, "telemetry", _NothingSent()),
            patch.object(bars, "Progress", lambda *_, **__: _Bar(state)),
        ):
            yield nncf
    finally:
        logger.setLevel(level)
        listener.finish()


def import_nncf() -> Any:
    """The module `nncf`; UsageError where it is not installed."""
    import_openvino()  # after which nobody can import the package that sends
    try:
        with redirect_stdout(sys.stderr):  # NNCF keeps what it finds there for its messages
            return importlib.import_module("nncf")
    except ImportError as error:
        raise UsageError("int8 needs NNCF, which is not installed: pip install 'taxonet[int8]'") from error


class _Bar:
    """What NNCF calls of `rich.progress.Progress`."""

    def __init__(self, state: SimpleNamespace) -> None:
        self.state = state
        self.title = ""

    def add_task(self, description: str, **_: Any) -> int:
        self.title = description.removesuffix("...")
        return 0

    def remove_task(self, task: int) -> None:
        pass

    def update(self, task: int, **_: Any) -> None:
        pass

    def __enter__(self) -> "_Bar":
        self.state.depth += 1
        return self

    def __exit__(self, *_: object) -> None:
        self.state.depth -= 1

    def track(self, sequence: Iterable[T], total: float | None = None, **_: Any) -> Iterator[T]:
        """The sequence, each item shown and checked against the clock."""
        outermost = self.state.depth == 1
        count = int(total) if total is not None else len(sequence)  # type: ignore[arg-type]
        if outermost:
            self.state.listener.start(f"NNCF: {self.title.lower()}", count)
        for done, item in enumerate(sequence, start=1):
            if time.monotonic() > self.state.end:
                raise OutOfTimeError
            yield item
            if outermost:
                self.state.listener.advance(done)
