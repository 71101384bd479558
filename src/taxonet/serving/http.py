"""uvicorn's HTTP with limits on what comes before a request is one: size and time of its head, and connections.

uvicorn itself waits for ever for a head, and with httptools takes one of any size.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from taxonet.serving.problems import MEDIA_TYPE, document
from taxonet.serving.settings import Settings

MAX_HEAD = 2**16  # bytes of request line and headers
FRESH = 0.5  # seconds in which a new connection may still send its request while the server ends


def protocol_of(settings: Settings) -> type[HttpToolsProtocol]:
    """The protocol class of a server; uvicorn makes one of it for each connection."""

    class Limited(LimitedProtocol):
        head_seconds = settings.head_seconds
        max_connections = settings.max_connections

    return Limited


class LimitedProtocol(HttpToolsProtocol):
    """A connection that is closed when its head is too slow or too large, or there are too many."""

    head_seconds = 10.0
    max_connections = 1024

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._clock: asyncio.TimerHandle | None = None
        self._head_size = 0
        self._in_head = True

    def connection_made(self, transport: Any) -> None:
        """Begin the clock of the first head."""
        super().connection_made(transport)
        self._begun = self.loop.time()
        if len(self.connections) > self.max_connections:
            self._refuse(503, f"the server has {self.max_connections} connections already, come again in a second")
            return
        self._start_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop_clock()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count the bytes of a head."""
        if self._in_head:
            self._start_clock()
            self._head_size += len(data)
        super().data_received(data)
        if self._in_head and self._head_size > MAX_HEAD and not self.transport.is_closing():
            self._refuse(431, f"the request line and headers have more than {MAX_HEAD:,} bytes")

    def on_headers_complete(self) -> None:
        """A head is whole."""
        self._in_head = False
        self._stop_clock()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """A request is whole; what follows is another one's head."""
        self._in_head, self._head_size = True, 0
        super().on_message_complete()

    def shutdown(self) -> None:
        """The server ends: a connection that is new may still have a request on its way."""
        age = self.loop.time() - self._begun
        if self.cycle is None and age < FRESH and not self.transport.is_closing():
            self.loop.call_later(FRESH - age, self._shutdown_late)
        else:
            super().shutdown()

    def _shutdown_late(self) -> None:
        if not self.transport.is_closing():
            super().shutdown()

    def _start_clock(self) -> None:
        if self._clock is None:
            self._clock = self.loop.call_later(self.head_seconds, self._too_slow)

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _too_slow(self) -> None:
        self._clock = None
        if self.cycle is None or self.cycle.response_complete:
            self._refuse(408, f"the request's head took longer than {self.head_seconds:g} s")

    def _refuse(self, status: int, detail: str) -> None:
        """Answer in the protocol itself, before there is a request, and close."""
        self._stop_clock()
        body = document(status, detail)
        head = f"HTTP/1.1 {status} Refused\r\ncontent-type: {MEDIA_TYPE}\r\ncontent-length: {len(body)}\r\n"
        again = "retry-after: 1\r\n" if status == 503 else ""
        self.transport.write(f"{head}{again}connection: close\r\n\r\n".encode() + body)
        self.transport.close()
