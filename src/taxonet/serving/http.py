"""uvicorn's HTTP with limits on what comes before a request is one: size and time of its head, and connections.

uvicorn itself waits for ever for a head, and with httptools takes one of any size.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from taxonet.serving.problems import MEDIA_TYPE, document
from taxonet.serving.settings import Settings

MAX_HEAD = 2**16  # bytes of request line and headers
FRAMES = 8  # bytes of frame that a byte of the body may have: a chunk of one byte has five
FRESH = 2.0  # seconds in which a new connection may still send its request while the server ends


def protocol_of(settings: Settings, on_refusal: Callable[[], None]) -> type[HttpToolsProtocol]:
    """The protocol class of a server; uvicorn makes one of it for each connection."""

    class Limited(LimitedProtocol):
        head_timeout = settings.head_timeout
        max_connections = settings.max_connections
        refused = staticmethod(on_refusal)

    return Limited


class LimitedProtocol(HttpToolsProtocol):
    """A connection that is closed when its head is too slow or too large, or there are too many."""

    head_timeout = 10.0
    max_connections = 1024
    refused: Callable[[], None] = staticmethod(lambda: None)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._clock: asyncio.TimerHandle | None = None
        self._size = self._body = 0  # bytes of a request, and of its body
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
        """Count the bytes of a request: of its head, and of what is neither head nor body."""
        if self._in_head:
            self._start_clock()
        self._size += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._in_head and self._size > MAX_HEAD:
            self._refuse(431, f"the request line and headers have more than {MAX_HEAD:,} bytes")
        elif self._size > 2 * MAX_HEAD + FRAMES * self._body:
            self._refuse(431, f"what surrounds the body's chunks has more than {MAX_HEAD:,} bytes")

    def on_headers_complete(self) -> None:
        """A head is whole."""
        self._in_head = False
        self._stop_clock()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of the body: what else comes after the head is the frames of chunks, and trailers."""
        self._body += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request is whole; what follows is another one's head."""
        self._in_head = True
        self._size = self._body = 0
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
            self._clock = self.loop.call_later(self.head_timeout, self._too_slow)

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _too_slow(self) -> None:
        self._clock = None
        if self.cycle is None or self.cycle.response_complete:
            self._refuse(408, f"the request's head took longer than {self.head_timeout:g} s")

    def _refuse(self, status: int, detail: str) -> None:
        """Answer in the protocol itself, before there is a request, and close."""
        self._stop_clock()
        self.refused()
        body = document(status, detail)
        head = f"HTTP/1.1 {status} Refused\r\ncontent-type: {MEDIA_TYPE}\r\ncontent-length: {len(body)}\r\n"
        again = "retry-after: 1\r\n" if status == 503 else ""
        self.transport.write(f"{head}{again}connection: close\r\n\r\n".encode() + body)
        self.transport.close()
