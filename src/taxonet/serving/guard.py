"""What stands before the application: who may ask, how much, how long; and what every answer carries.

One ASGI layer. It reads a request's body, bounded in bytes and time, before the application sees the request; a client
that goes away takes its pictures out of the queue; whatever fails is answered by a problem and never by a traceback.
"""

import asyncio
import time
import traceback
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from contextlib import suppress
from typing import Any, TypeAlias

from taxonet.serving.deployment import Deployment
from taxonet.serving.log import say
from taxonet.serving.metrics import Metrics
from taxonet.serving.problems import MEDIA_TYPE, ProblemError, document
from taxonet.serving.settings import Settings

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN = ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready", "/openapi.json")  # to everybody, as the page is
SECURITY = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(self), geolocation=(), microphone=()"),
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
        b"manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
)
SMALL = 2**16  # bytes of a body that nobody needs
GONE = 499  # what the figures say of a client that left before its answer, as nginx does
KINDS = {408: "time", 504: "time", 503: "queue", 500: "model"}


class Guard:
    """The layer around an application."""

    def __init__(self, app: App, settings: Settings, deployment: Deployment, metrics: Metrics) -> None:
        self.app, self.settings, self.deployment, self.metrics = app, settings, deployment, metrics
        self._held = 0  # bytes of bodies in memory

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        if scope["method"] == "HEAD":  # answered as GET; uvicorn leaves the body out
            scope = {**scope, "method": "GET"}
        answer = _Answer(send, self.settings.cors != (), lambda: self.deployment.draining)
        started = time.perf_counter()
        try:
            await self._within_time(scope, receive, answer)
        except _GoneError:
            answer.status = answer.status or GONE
        except ProblemError as problem:
            await answer.problem(problem)
        except Exception:
            say(traceback.format_exc())  # for who runs the server, and nobody else
            await answer.problem(ProblemError(500, "the server failed on this request, its log says how"))
        route = getattr(scope.get("route"), "path", None) or "none"
        self.metrics.requests.labels(route, str(answer.status)).inc()
        self.metrics.request_seconds.labels(route).observe(time.perf_counter() - started)
        if answer.status >= 400:
            self.metrics.errors.labels(KINDS.get(answer.status, "request")).inc()

    async def _within_time(self, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        seconds = self.settings.timeout
        reading = True
        held = 0
        try:
            async with asyncio.timeout(seconds):
                self._check_access(scope)
                body, held = await self._body(scope, receive)
                reading = False
                await self._until_gone(scope, receive, answer, body)
        except TimeoutError:
            what, status = ("the body", 408) if reading else ("the answer", 504)
            raise ProblemError(status, f"{what} took longer than {seconds:g} s", _close()) from None
        finally:
            self._held -= held

    def _check_access(self, scope: Scope) -> None:
        tokens, path = self.settings.tokens, scope["path"]
        if tokens is None or path in OPEN or not path.startswith(("/v1", "/v2", "/metrics")):
            return
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(given) != 1 or not tokens.know(given[0]):
            raise ProblemError(
                401, "this needs a token: Authorization: Bearer TOKEN", {"www-authenticate": "Bearer"} | _close()
            )

    async def _body(self, scope: Scope, receive: Receive) -> tuple[bytes, int]:
        """The whole body and how much of the server's memory it has taken."""
        most = self.settings.max_body if scope["method"] == "POST" else SMALL
        length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if length.isdigit() and (len(length) > 18 or int(length) > most):
            raise _too_large(most)
        parts: list[bytes] = []
        size = 0
        try:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise _GoneError
                part = message.get("body", b"")
                size += len(part)
                self._held += len(part)
                if size > most:
                    raise _too_large(most)
                if self._held > self.settings.max_memory:
                    raise ProblemError(
                        503, "the requests at work fill the memory, come again in 1 s", {"retry-after": "1"} | _close()
                    )
                parts.append(part)
                if not message.get("more_body"):
                    return b"".join(parts) if len(parts) > 1 else parts[0], size
        except BaseException:
            self._held -= size
            raise

    async def _until_gone(self, scope: Scope, receive: Receive, answer: "_Answer", body: bytes) -> None:
        """Run the application; where the client goes away before the answer, stop it."""
        told = False

        async def replay() -> Message:
            nonlocal told
            if told:
                await asyncio.Event().wait()  # the application does not need to know: it is stopped
            told = True
            return {"type": "http.request", "body": body, "more_body": False}

        work = asyncio.ensure_future(self.app(scope, replay, answer))
        leaving = asyncio.ensure_future(_leaving(receive))
        try:
            await asyncio.wait((work, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise _GoneError
            await work
        finally:
            for task in (work, leaving):
                if not task.done():
                    task.cancel()
                    with suppress(asyncio.CancelledError, Exception):
                        await task


class _GoneError(ProblemError):
    """The client is away: nobody gets this answer."""

    def __init__(self) -> None:
        super().__init__(400, "the client went away")


async def _leaving(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _too_large(most: int) -> ProblemError:
    return ProblemError(413, f"the body has more than {most:,} bytes, send the pictures in several requests", _close())


def _close() -> dict[str, str]:
    """What was not read of the body must not be taken for the next request."""
    return {"connection": "close"}


class _Answer:
    """The answer under way: its status, and the headers that every one gets."""

    def __init__(self, send: Send, shared: bool, closes: Callable[[], bool]) -> None:
        self._send, self._shared, self._closes = send, shared, closes
        self.status = 0

    async def __call__(self, message: Message) -> None:
        """Pass a message on."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = list(message.get("headers", ()))
            present = {name.lower() for name, _ in headers}
            headers += [pair for pair in self._security() if pair[0] not in present]
            if self._closes() and b"connection" not in present:
                headers.append((b"connection", b"close"))
            message = {**message, "headers": headers}
        await self._send(message)

    def _security(self) -> Iterable[tuple[bytes, bytes]]:
        return (pair for pair in SECURITY if not (self._shared and pair[0] == b"cross-origin-resource-policy"))

    async def problem(self, problem: ProblemError) -> None:
        """Answer with a problem, where no answer has begun."""
        if self.status:
            return
        body = document(problem.status, problem.detail)
        headers = [(name.encode(), value.encode()) for name, value in problem.headers.items()]
        headers += [(b"content-type", MEDIA_TYPE.encode()), (b"content-length", str(len(body)).encode())]
        with suppress(Exception):  # the client is gone
            await self({"type": "http.response.start", "status": problem.status, "headers": headers})
            await self({"type": "http.response.body", "body": body})
