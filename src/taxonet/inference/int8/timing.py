"""Two engines' speed on this machine, measured in turn, so that whatever else the machine does hits both alike."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taxonet.inference.engines import Engine
from taxonet.timing import in_turn

BATCH = 16
ROUNDS = 9  # of batches; the median counts
SINGLES = 15
SECONDS = 6.0  # after which no further round starts
LEAST = 3


@dataclass(frozen=True)
class Rate:
    """Photos a second of the network alone, all cores busy, and milliseconds for a single photo: medians."""

    per_second: float
    single_ms: float

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return asdict(self)


def measure_rates(engines: Sequence[Engine], pixels: NDArray[np.uint8]) -> list[Rate]:
    """Time engines on prepared photos (N, H, W, C); the first round of each does not count."""
    streams = max(engine.streams for engine in engines)
    batches = [np.take(pixels, range(BATCH * i, BATCH * (i + 1)), axis=0, mode="wrap") for i in range(streams)]
    with ThreadPoolExecutor(streams) as pool:

        def together(engine: Engine) -> float:
            part = batches[: engine.streams]
            start = time.perf_counter()
            list(pool.map(engine.run, part))
            return (time.perf_counter() - start) / (BATCH * len(part))

        many = _rounds(together, engines, ROUNDS)
    single = _rounds(lambda engine: _time(engine, pixels[:1]), engines, SINGLES)
    return [Rate(1 / a, 1000 * b) for a, b in zip(many, single, strict=True)]


def _time(engine: Engine, pixels: NDArray[np.uint8]) -> float:
    start = time.perf_counter()
    engine.run(pixels)
    return time.perf_counter() - start


def _rounds(once: Callable[[Engine], float], engines: Sequence[Engine], rounds: int) -> list[float]:
    """The median seconds of each engine."""
    found = in_turn(len(engines), lambda i, _: once(engines[i]), rounds, warm_up=1, least=LEAST, seconds=SECONDS / 2)
    return [float(np.median(taken)) for taken in found]
