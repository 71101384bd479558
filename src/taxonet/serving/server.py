"""`serve`: open the models, listen, and end without losing what was accepted."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Iterator, Sequence
from typing import Any

import uvicorn

from taxonet.errors import UsageError
from taxonet.serving.app import create_app
from taxonet.serving.deployment import Deployment
from taxonet.serving.http import protocol_of
from taxonet.serving.log import keep_descriptors, say
from taxonet.serving.metrics import Metrics
from taxonet.serving.pool import Pool
from taxonet.serving.settings import Settings

try:
    import resource
except ImportError:  # Windows has no such limits
    resource = None  # type: ignore[assignment]

SPARE = 100  # descriptors beside those of connections: workers, models, the log
BACKLOG = 1024  # connections that the system keeps until they are taken


async def run(models: Sequence[str], settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        TaxonetError: a model cannot be opened, or the address is taken.
    """
    keep_descriptors()
    _allow_connections(settings)
    listener = _listen(settings)
    pool = Pool(settings, say)
    deployment = Deployment(pool, settings, say)
    metrics = Metrics(deployment)
    try:
        await pool.start()
        await deployment.open(models)
        app = create_app(settings, deployment, metrics)
        watching = asyncio.create_task(deployment.watch())
        try:
            await _Server(_config(app, settings, metrics), deployment).serve([listener])
        finally:
            watching.cancel()
    finally:
        listener.close()
        await pool.stop()
        deployment.close()


def _listen(settings: Settings) -> socket.socket:
    """The socket, taken before the models are opened: an address in use is told at once."""
    try:
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # inherited; without it answers wait for an ACK
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # a client that takes no answer any more is dropped
            milliseconds = int(1000 * settings.timeout)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
        listener.bind((settings.host, settings.port))
        listener.listen(BACKLOG)  # who comes before the models are open waits
    except OSError as error:
        raise UsageError(f"cannot listen on {settings.host}:{settings.port}: {error.strerror or error}") from error
    return listener


def _allow_connections(settings: Settings) -> None:
    """Raise the soft limit of descriptors where it would not hold the connections."""
    if resource is None:
        return
    needed = settings.max_connections + SPARE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        granted = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (granted, hard))
        if granted < needed:
            raise UsageError(
                f"max_connections is {settings.max_connections}, and the system grants {hard} open files; "
                f"ask for at most {max(1, hard - SPARE)}"
            )


def _config(app: Any, settings: Settings, metrics: Metrics) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=protocol_of(settings, lambda: metrics.errors.labels("connection").inc()),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=max(1, round(settings.idle_timeout)),
        timeout_graceful_shutdown=round(settings.timeout) + 5,
    )


class _Server(uvicorn.Server):
    """uvicorn, which on a signal first goes on for a moment as one that is not ready."""

    def __init__(self, config: uvicorn.Config, deployment: Deployment) -> None:
        super().__init__(config)
        self._deployment = deployment

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Let signals begin the end; uvicorn's own way kills the process by the signal when all is done."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._begin_to_end)
        yield

    def _begin_to_end(self) -> None:
        if self._deployment.draining:  # a second signal: at once
            self.should_exit = self.force_exit = True
            return
        self._deployment.draining = True
        asyncio.get_running_loop().call_later(self._deployment.settings.drain, self._end)
        say("ending: what was accepted is answered first")

    def _end(self) -> None:
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Say where the server listens."""
        await super().startup(sockets)
        host, port = (sockets or [])[0].getsockname()[:2]
        say(f"listening on http://{f'[{host}]' if ':' in host else host}:{port}")

    def _log_started_message(self, listeners: Any) -> None:
        """Said by `startup`."""
