"""What a server allows and how it shares out the machine; every limit is on by default."""

import hashlib
import hmac
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from taxonet.errors import DataError, UsageError
from taxonet.machine import cpu_count

MEBI = 2**20
SHORTEST_TOKEN = 16  # characters; a shorter one can be guessed


@dataclass(frozen=True)
class Settings:
    """How a server listens, what it refuses and how it batches.

    Sizes are bytes, times seconds. `batch` and `wait` hold for every model that `batch_of` and `wait_of` do not name:
    a worker takes up to `batch` waiting pictures at once, and waits up to `wait` for more to come together.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 0  # processes; 0 chooses
    batch: int = 4
    wait: float = 0.0
    batch_of: Mapping[str, int] = field(default_factory=dict)
    wait_of: Mapping[str, float] = field(default_factory=dict)
    queue: int = 512  # pictures that wait, of each model
    max_body: int = 32 * MEBI  # of a request
    max_memory: int = 512 * MEBI  # of all requests at work
    max_pixels: int = 50_000_000  # of a picture before it is decoded
    max_files: int = 256  # of a request
    max_connections: int = 1024
    timeout: float = 30.0  # from the first byte of the body to the answer
    head_timeout: float = 10.0  # for the request line and headers
    idle_timeout: float = 15.0  # of a kept connection between requests
    drain: float = 1.0  # that go on being served after SIGTERM, so that a balancer can take notice
    reload_every: float = 1.0  # between looks at the models' files
    tokens: "Tokens | None" = None
    cors: tuple[str, ...] = ()
    engine: str = "auto"

    def __post_init__(self) -> None:
        _at_least(self, 1, "batch", "queue", "max_body", "max_memory", "max_pixels", "max_files", "max_connections")
        _at_least(self, 0, "workers", "wait", "drain")
        for name, least in (("batch_of", 1), ("wait_of", 0)):
            for model, value in getattr(self, name).items():
                if not least <= value < math.inf:
                    raise UsageError(f"{name.removesuffix('_of')} of {model} is {value:g}, it must be at least {least}")
        for name in ("timeout", "head_timeout", "idle_timeout", "reload_every"):
            if not 0 < getattr(self, name) < math.inf:
                raise UsageError(f"{name} is {getattr(self, name):g}, it must be a number of seconds above 0")
        for origin in self.cors:
            if origin != "*" and not origin.startswith(("http://", "https://")):
                raise UsageError(f"cors is '{origin}', it must be an origin such as https://{origin}")
        if not 0 <= self.port <= 65535:
            raise UsageError(f"port is {self.port}, it must be from 0 (any that is free) to 65535")
        if self.queue < self.max_files:
            raise UsageError(
                f"queue is {self.queue} and max_files is {self.max_files}: the queue must hold the files of one request"
            )
        if self.max_memory < self.max_body:
            raise UsageError(
                f"max_memory is {self.max_memory / MEBI:g} MiB and max_body is {self.max_body / MEBI:g} MiB: "
                "memory must hold one request"
            )
        if "*" in self.cors and self.tokens:
            raise UsageError("cors is '*' and tokens are asked for: name the origins that may send a token")

    def worker_count(self) -> int:
        """How many worker processes: as asked, else two, so that one is there while another starts again, and one for
        every four cores beyond eight; a single core has one."""
        cores = cpu_count()
        return self.workers or (1 if cores == 1 else max(2, cores // 4))

    def shares(self) -> list[int]:
        """How many threads each worker computes with: together as many as there are cores, and each at least one."""
        count, cores = self.worker_count(), cpu_count()
        return [max(1, cores // count + (i < cores % count)) for i in range(count)]


class Tokens:
    """The bearer tokens of a file, one a line; only their hashes stay in memory."""

    def __init__(self, tokens: Sequence[str]) -> None:
        if not tokens:
            raise UsageError("there is no token: give at least one")
        for token in tokens:
            if len(token) < SHORTEST_TOKEN or not token.isascii() or any(ch.isspace() for ch in token):
                raise UsageError(f"a token must be at least {SHORTEST_TOKEN} ASCII characters without spaces")
        self._digests = [hashlib.sha256(token.encode()).digest() for token in tokens]

    @classmethod
    def of_file(cls, path: str | os.PathLike[str]) -> "Tokens":
        """Read a file of tokens; `#` begins a comment line."""
        try:
            lines = Path(path).read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise DataError(f"the tokens in {path} cannot be read: {reason}") from error
        tokens = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
        try:
            return cls(tokens)
        except UsageError as error:
            raise UsageError(f"{path}: {error}") from error

    def know(self, header: bytes) -> bool:
        """Whether `Authorization: Bearer TOKEN` has one of them; every one is compared, in constant time."""
        scheme, _, token = header.partition(b" ")
        given = hashlib.sha256(token.strip()).digest()
        same = [hmac.compare_digest(given, digest) for digest in self._digests]
        return scheme.lower() == b"bearer" and any(same)


def _at_least(settings: Settings, least: int, *names: str) -> None:
    for name in names:
        if not least <= getattr(settings, name) < math.inf:
            raise UsageError(f"{name} is {getattr(settings, name):g}, it must be at least {least}")
