"""Serving: models behind an HTTP API and a page.

One process speaks HTTP and never decodes a picture or runs a network; workers, each with its share of the cores, do
nothing else (`pool.py`, `worker.py`). A worker that dies costs time and no request.
"""

import asyncio
import importlib.util
import os
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

from taxonet.errors import UsageError, nearest
from taxonet.serving.settings import Settings, Tokens

PACKAGES = ("fastapi", "httptools", "prometheus_client", "python_multipart", "uvicorn")


def serve(models: "str | os.PathLike[str] | Sequence[str | os.PathLike[str]]", **settings: Any) -> None:
    """Serve models until the process gets SIGTERM or SIGINT.

    Args:
        models: bundles, exports (X.xml, X.onnx) or names of pretrained weights; `NAME=PATH` gives a name of its own.
        settings: the fields of `serving.Settings`: host, port, workers, batch, queue, the limits, tokens, …

    Raises:
        UsageError: a wrong value, an address that is taken, or what serving needs is not installed.
        BundleError: a model cannot be opened.
    """
    check_installed()
    known = [field.name for field in fields(Settings)]
    for name in settings:
        if name not in known:
            raise UsageError(f"there is no setting '{name}'{nearest(name, known) or ': ' + ', '.join(known)}")
    from taxonet.serving.server import run

    words = [models] if isinstance(models, str | os.PathLike) else models
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(run([os.fspath(word) for word in words], Settings(**settings)))


def _loop_factory() -> "Callable[[], asyncio.AbstractEventLoop] | None":
    """uvloop's event loop where it is installed, else Python's own."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def check_installed() -> None:
    """Refuse with the command that helps where the packages for serving are missing."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(f"serving needs {', '.join(missing)}: pip install 'taxonet[serve]'")


__all__ = ["Settings", "Tokens", "serve"]
