"""What a run will take, before its first epoch: some of its own steps are measured and their effects undone."""

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from taxonet.figures import duration
from taxonet.training import loop
from taxonet.training.feed import steps_of

STEPS = 4  # the first makes kernels and buffers, and is not counted
VALIDATION = 32  # pictures that are measured


@dataclass(frozen=True)
class Estimate:
    """Seconds of an epoch with its validation, epochs, and the most bytes that the process has had so far."""

    epoch_seconds: float
    epochs: int
    peak_bytes: int | None

    def __str__(self) -> str:
        memory = f", memory {self.peak_bytes / 2**30:.1f} GB" if self.peak_bytes else ""
        whole = self.epoch_seconds * self.epochs
        return f"about {duration(self.epoch_seconds)} an epoch, {duration(whole)} in all{memory}"


def estimate(training: loop.Training) -> Estimate:
    """Measure the first steps of a fresh run, pictures included, and leave it as it was.

    Only the division of the batch stays, where memory ran out: the run would find the same.
    """
    undo = _remember(training)
    steps = steps_of(training.recipe, len(training.train))
    loop.set_training_mode(training.network, training.recipe)
    computing, start = [], time.perf_counter()
    for batch in training.feed.load(0, last=STEPS):
        begun = time.perf_counter()
        loop.step(training, batch, steps)
        computing.append(time.perf_counter() - begun)
    reading = (time.perf_counter() - start - sum(computing)) / len(
        computing
    )  # most pictures come before the first step
    validation = _validation_seconds(training)
    peak = peak_memory()
    undo()
    epoch = (statistics.mean(computing[1:] or computing) + reading) * steps + validation
    return Estimate(epoch, training.recipe.epochs, peak)


def _remember(training: loop.Training) -> Callable[[], None]:
    """A function that puts networks, optimiser and position back as they are now; the optimiser is still fresh."""
    networks = list(training.networks.values())
    states = [{name: value.detach().clone() for name, value in n.state_dict().items()} for n in networks]
    position = replace(training.position)

    def undo() -> None:
        for network, state in zip(networks, states, strict=True):
            network.load_state_dict(state, strict=True)
        training.optimizer.state.clear()
        training.optimizer.zero_grad(set_to_none=True)
        training.position = replace(position, splits=training.position.splits)

    return undo


def _validation_seconds(training: loop.Training) -> float:
    classifier = training.classifier(training.result)
    paths = [sample.path for sample in training.val[:VALIDATION]]
    start = time.perf_counter()
    for _ in classifier.score_each(paths):
        pass
    return (time.perf_counter() - start) * len(training.val) / len(paths) / training.world.size


def peak_memory() -> int | None:
    """The most bytes that this process has had: on the accelerator if there is one, else resident; None if unknown."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
