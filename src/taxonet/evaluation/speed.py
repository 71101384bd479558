"""How fast models answer on this machine: measured in turn, so that whatever else the machine does hits all alike."""

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
    clock = _Clock(total, progress)
    singles = clock.rounds(runs, classifiers, lambda c, i, r: _time(c, [batch[r % BATCH]], pixels[i][r % BATCH :][:1]))
    together = clock.rounds(batches, classifiers, lambda c, i, r: _time(c, batch, pixels[i]))
    return [
        Speed(_timing(one, 0), _timing(one, 1), _timing(many, 0), _timing(many, 1), BATCH)
        for one, many in zip(singles, together, strict=True)
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


class _Clock:
    def __init__(self, total: int, progress: Rounds | None) -> None:
        self.total, self.done, self.progress = total, 0, progress

    def rounds(
        self,
        runs: int,
        classifiers: Sequence[Classifier],
        once: Callable[[Classifier, int, int], tuple[float, float]],
    ) -> list[list[tuple[float, float]]]:
        """`runs` rounds after the warm-up; in each every model has its turn, beginning with another one each time."""
        deadline = time.monotonic() + SECONDS / 2
        times: list[list[tuple[float, float]]] = [[] for _ in classifiers]
        for number in range(runs + WARM_UP):
            for turn in range(len(classifiers)):
                i = (turn + number) % len(classifiers)
                taken = once(classifiers[i], i, number)
                if number >= WARM_UP:
                    times[i].append(taken)
            self.done += 1
            if self.progress:
                self.progress(self.done, self.total)
            if number >= WARM_UP + LEAST - 1 and time.monotonic() > deadline:
                break
        return times


def _timing(times: Sequence[tuple[float, float]], which: int) -> Timing:
    low, median, high = np.quantile([pair[which] for pair in times], [0.25, 0.5, 0.75])
    return Timing(float(median), float(low), float(high), len(times))
