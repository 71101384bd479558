"""What each step of an epoch sees: the order of the pictures, their division into steps, parts and processes, and the
augmented pictures themselves. All of it is a pure function of (seed, epoch, step, place)."""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from taxonet.data import read_ahead
from taxonet.processes import World
from taxonet.training.balance import balanced_order, occurrences
from taxonet.training.mixing import Mix, draw_mix
from taxonet.training.recipe import Recipe

Pixels = NDArray[np.uint8]
Rendered = tuple[Pixels, Pixels | None]  # a picture as the network sees it, and as its teacher does
Place = tuple[int, int]  # of a training picture, and how often the epoch has shown it before


@dataclass(frozen=True)
class Part:
    """The rows of a batch that go through the network at once: `start` … `stop` of this process's pictures.

    Over all processes the part has `whole` pictures, of which these are `first` and the following; each process has
    `least` of them or one more.
    """

    start: int
    stop: int
    first: int
    whole: int
    least: int


@dataclass(frozen=True)
class Views:
    """Augmented pictures (N, H, W, C), as the network and as its teacher sees them, and their labels (N,)."""

    pixels: Pixels
    labels: Tensor
    for_teacher: Pixels | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: NDArray[np.int64]) -> "Views":
        """The pictures in these rows."""
        return Views(self.pixels[rows], self.labels[rows], None if self.for_teacher is None else self.for_teacher[rows])


@dataclass(frozen=True)
class Batch:
    """The pictures of one step: this process's, what they are mixed with, and how many there are in all processes."""

    own: Views
    count: int
    parts: tuple[Part, ...]
    mix: Mix | None = None
    other: Views | None = None

    @classmethod
    def alone(cls, own: Views, mix: Mix | None = None, parts: int = 1) -> "Batch":
        """The batch of a single process."""
        other = own.take(mix.partner) if mix else None
        return cls(own, len(own), _parts(len(own), parts, World()), mix, other)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the pictures."""
        return self.own.pixels.shape[1], self.own.pixels.shape[2]


def batches(labels: Sequence[int], recipe: Recipe, epoch: int) -> list[NDArray[np.int64]]:
    """The epoch's places (n, 2), step by step, in numbers that differ by one at most: no tail of one for batch norm."""
    rng, count = np.random.default_rng([recipe.seed, epoch, 1]), len(labels)
    order = balanced_order(labels, rng) if recipe.balance == "sampling" else rng.permutation(count)
    places = np.stack([order, occurrences(order)], axis=1)
    return np.array_split(places, steps_of(recipe, count))


def steps_of(recipe: Recipe, count: int) -> int:
    """The steps of an epoch over so many pictures."""
    return -(-count // (recipe.batch_size * recipe.accumulate))


@dataclass(frozen=True)
class Feed:
    """Where the pictures of a run come from: `render` gives one, `labels` are those of the training pictures."""

    recipe: Recipe
    labels: Sequence[int]
    size: tuple[int, int]
    render: Callable[[int, int, int], Rendered]  # (epoch, place, how often before)
    world: World
    least: int  # pictures that a part must have

    def load(self, epoch: int, first: int = 0, last: int | None = None) -> Generator[Batch]:
        """The batches of an epoch from step `first` on, read ahead."""
        steps = list(enumerate(batches(self.labels, self.recipe, epoch)))[first:last]
        plans = [self._plan(epoch, step, places) for step, places in steps]
        single = (place for rows, other, *_ in plans for place in (*rows, *other))
        ahead = 4 * self.recipe.batch_size
        pixels = read_ahead(lambda place: self.render(epoch, *place), single, ahead=ahead)
        try:
            for rows, other, count, parts, mix in plans:
                own = self.world.agreed(lambda rows=rows: self._views(rows, pixels))  # type: ignore[misc]
                partners = self.world.agreed(lambda other=other: self._views(other, pixels)) if other else None  # type: ignore[misc]
                if mix and not other:
                    partners = own.take(mix.partner)
                yield Batch(own, count, parts, mix, partners)
        finally:
            pixels.close()  # type: ignore[attr-defined]

    def _plan(
        self, epoch: int, step: int, places: NDArray[np.int64]
    ) -> tuple[list[Place], list[Place], int, tuple[Part, ...], Mix | None]:
        """This process's places of a step, those of their partners where others have these, and how it is done."""
        count = len(places)
        wanted = max(1, min(self.recipe.accumulate, count // self.least))
        parts = _parts(count, wanted, self.world)
        rows = np.concatenate([s[slice(*self.world.bounds(len(s)))] for s in np.array_split(np.arange(count), wanted)])
        mix = draw_mix(self.recipe, epoch, step, count, self.size)
        own = [(int(place), int(again)) for place, again in places[rows]]
        if mix is None or self.world.size == 1:
            return own, [], count, parts, mix
        other = [(int(place), int(again)) for place, again in places[mix.partner[rows]]]
        return own, other, count, parts, mix

    def _views(self, places: Sequence[Place], pixels: Iterator[Rendered]) -> Views:
        own, for_teacher = zip(*(next(pixels) for _ in places), strict=True)
        labels = torch.tensor([self.labels[place] for place, _ in places])
        return Views(np.stack(own), labels, None if for_teacher[0] is None else np.stack(for_teacher))


def _parts(count: int, wanted: int, world: World) -> tuple[Part, ...]:
    """A step's pictures in `wanted` parts, each divided among the processes."""
    parts, start = [], 0
    for section in np.array_split(np.arange(count), wanted):
        first, last = world.bounds(len(section))
        parts.append(Part(start, start + last - first, first, len(section), len(section) // world.size))
        start += last - first
    return tuple(parts)
