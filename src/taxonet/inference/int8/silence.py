"""NNCF without its two habits: a sender of usage figures, and messages on stdout."""

import importlib
import io
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any
from unittest.mock import patch

from taxonet.errors import UsageError
from taxonet.inference.engines.libraries import import_openvino


class _NothingSent:
    """Takes the place of NNCF's sender, where somebody imported NNCF before us."""

    def start_session(self, *_: Any, **__: Any) -> None:
        """Begin nothing."""

    send_event = end_session = start_session


@contextmanager
def quiet_nncf() -> Iterator[Any]:
    """The module `nncf` for the block, in which it neither sends nor prints.

    Raises:
        UsageError: it is not installed.
    """
    nncf = import_nncf()
    decorator = importlib.import_module("nncf.telemetry.decorator")
    with redirect_stdout(io.StringIO()):  # NNCF's bars
        logger = logging.getLogger("nncf")
        level = logger.level
        logger.setLevel(logging.ERROR)
        try:
            with patch.object(decorator, "telemetry", _NothingSent()):
                yield nncf
        finally:
            logger.setLevel(level)


def import_nncf() -> Any:
    """The module `nncf`; UsageError where it is not installed."""
    import_openvino()  # after which nobody can import the package that sends
    try:
        with redirect_stdout(sys.stderr):  # NNCF keeps what it finds there for its messages
            return importlib.import_module("nncf")
    except ImportError as error:
        raise UsageError("int8 needs NNCF, which is not installed: pip install 'taxonet[int8]'") from error
