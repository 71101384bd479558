"""What every contender of the benchmarks of prediction has."""

import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from networks import Files

BATCH = 16
Labels = Sequence[int]


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def settings(**choices: Sequence[Any]) -> list[dict[str, Any]]:
    """Every combination."""
    return [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]


class Contender:
    """What all have: a name for the table, the packages they need, the settings to try."""

    NAME: ClassVar[str]
    NEEDS: ClassVar[tuple[str, ...]] = ()
    SETTINGS: ClassVar[list[dict[str, Any]]] = [{}]

    def __init__(self, files: Files, photos: list[Path]) -> None:
        self.files, self.photos = files, photos

    def run(self, photos: list[Path]) -> Labels:
        """The index of the likeliest class of every photo."""
        raise NotImplementedError

    def one(self, photo: Path) -> int:
        """The same for a single photo, as soon as possible."""
        raise NotImplementedError
