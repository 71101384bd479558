"""How fast models answer on this machine: measured in turn, so that whatever else the machine does hits all alike."""

import itertools
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from taxonet.inference import Classifier
from taxonet.inference.engines import run_on_all
from taxonet.machine import cpu_count, processor
from taxonet.timing import in_turn

BATCH = 16
RUNS = 30  # rounds of single photos; a sixth of that of batches
LEAST = 5  # rounds, however slow the models are
SECONDS = 60.0  # after which no further round starts
WARM_UP = 2  # rounds that do not count

Rounds = Callable[[int, int], None]  # rounds done, rounds in all


@dataclass(frozen=True)
class Timing:
    """Milliseconds a photo: the median of `runs` and the quartiles around it."""

    median: float
    low: float
    high: float
    runs: int


@dataclass(frozen=True)
class Speed:
    """One model's timings: `single` and `batch` from file to answer, the others the network alone."""

    single: Timing
    single_network: Timing
    batch: Timing
    batch_network: Timing
    batch_size: int


@dataclass(frozen=True)
class Machine:
    """Where the timings come from; `load` is the number of processes that wanted a core in the minute before."""

    cpu: str
    cores: int  # that this process may use
    threads: int  # of torch
    load: float | None
    system: str


def describe_machine() -> Machine:
    """This machine, now."""
    import torch

    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return Machine(processor(), cpu_count(), torch.get_num_threads(), load, platform.system())


def measure_speed(
    classifiers: Sequence[Classifier], paths: Sequence[Path], runs: int = RUNS, progress: Rounds | None = None
) -> list[Speed]:
    """Time the models on photos that all of them can read, one photo and a batch at a time, the models in turn.

    The photos are read once before; files come from the system's cache, as a busy service finds them.
    """
    batch = [paths[i % len(paths)] for i in range(BATCH)]
    pixels = [np.stack([c.preprocessing.pixels(p) for p in batch]) for c in classifiers]
    batches = max(LEAST, runs // 6)
    total = runs + batches + 2 * WARM_UP
    counter = itertools.count(1)

    def one(which: int, number: int) -> tuple[float, float]:
        place = number % BATCH
        return _time(classifiers[which], [batch[place]], pixels[which][place : place + 1])

    def measured(once: Callable[[int, int], tuple[float, float]], rounds: int) -> list[list[tuple[float, float]]]:
        return in_turn(
            len(classifiers),
            once,
            rounds,
            warm_up=WARM_UP,
            least=LEAST,
            seconds=SECONDS / 2,
            after_round=lambda: progress(next(counter), total) if progress else None,
        )

    singles = measured(one, runs)
    together = measured(lambda i, _: _time(classifiers[i], batch, pixels[i]), batches)
    return [
        Speed(_timing(single, 0), _timing(single, 1), _timing(many, 0), _timing(many, 1), BATCH)
        for single, many in zip(singles, together, strict=True)
    ]


def _time(classifier: Classifier, paths: Sequence[Path], prepared: NDArray[np.uint8]) -> tuple[float, float]:
    """Milliseconds a photo, from files to answers and of the network alone."""
    start = time.perf_counter()
    for _ in classifier.score_each(paths, batch_size=len(paths)):
        pass
    middle = time.perf_counter()
    run_on_all(classifier.engine, prepared)
    end = time.perf_counter()
    return 1000 * (middle - start) / len(paths), 1000 * (end - middle) / len(paths)


def _timing(times: Sequence[tuple[float, float]], which: int) -> Timing:
    low, median, high = np.quantile([pair[which] for pair in times], [0.25, 0.5, 0.75])
    return Timing(float(median), float(low), float(high), len(times))
