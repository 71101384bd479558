"""Whether an engine answers as the reference does: the same pictures, both logits, one bound."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from taxonet.assets import photo_paths
from taxonet.data import Finding
from taxonet.errors import DataError, ImageError
from taxonet.images import Preprocessing

BOUND = 1e-4
"""What two engines' logits may differ by, as a part of the largest logit: some ten times what float32 in another order
of summation gives in the deepest network (docs/export.md), a tenth of what shows in a probability's third digit."""
PICTURES = 32  # of a user's data that are compared


@dataclass(frozen=True)
class Agreement:
    """How far the logits of an engine are from the reference's on some pictures.

    `largest_logit` is the largest magnitude in the reference, `difference` the largest distance, `allowed` what the
    bound allows. `other_labels` counts the pictures with another answer; those of them where the reference's two best
    classes are nearer than twice the difference are `near_ties`, which any rounding may turn.
    """

    pictures: int
    difference: float
    largest_logit: float
    allowed: float
    other_labels: int
    near_ties: int

    @property
    def holds(self) -> bool:
        """Whether the engine may stand for the reference."""
        return self.difference <= self.allowed and self.other_labels == self.near_ties

    def __str__(self) -> str:
        labels = f"{self.other_labels} of {self.pictures} labels differ" if self.other_labels else "all labels equal"
        return f"logits within {self.difference:.1e} (at most {self.allowed:.1e} allowed), {labels}"

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {**asdict(self), "holds": self.holds}


def compare_logits(reference: NDArray[np.float32], found: NDArray[np.float32], bound: float = BOUND) -> Agreement:
    """The agreement of two engines' logits (N, classes) on the same pictures; NaN agrees with nothing."""
    largest = float(np.abs(reference).max())
    allowed = bound * largest
    difference = float(np.nan_to_num(np.abs(reference - found), nan=np.inf, posinf=np.inf).max())
    other = reference.argmax(axis=1) != found.argmax(axis=1)
    best = np.sort(reference, axis=1)[:, -2:]
    tied = other & (best[:, -1] - best[:, 0] <= 2 * min(difference, allowed))
    return Agreement(len(reference), difference, largest, allowed, int(other.sum()), int(tied.sum()))


def shipped(preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Pixels (N, H, W, C) to compare engines on: views of the shipped photos."""
    return np.stack([preprocessing.pixels(view) for view in _views()])


def prepared(preprocessing: Preprocessing, photos: Iterable[Path]) -> tuple[NDArray[np.uint8], tuple[Finding, ...]]:
    """Pixels (N, H, W, C) of the user's photos to compare engines on, at most `PICTURES`, and the unreadable ones.

    Raises:
        DataError: not one of the photos can be read.
    """
    found: list[NDArray[np.uint8]] = []
    findings: list[Finding] = []
    for path in photos:
        try:
            found.append(preprocessing.pixels(path))
        except ImageError as error:
            findings.append(Finding(str(path), str(error)))
        if len(found) == PICTURES:
            break
    if not found:
        raise DataError("not one of the photos can be read, so there is nothing to compare the engines on")
    return np.stack(found), tuple(findings)


def _views() -> Iterator[Image.Image]:
    """Each shipped photo whole and in three crops, plain and mirrored."""
    for path in photo_paths():
        with Image.open(path) as opened:
            photo = opened.convert("RGB")
        width, height = photo.size
        for left, upper, part in ((0, 0, 1), (0, 0, 0.6), (0.4, 0.4, 0.6), (0.25, 0.1, 0.5)):
            box = (left * width, upper * height, (left + part) * width, (upper + part) * height)
            view = photo.crop(tuple(round(edge) for edge in box))  # type: ignore[arg-type]
            yield view
            yield ImageOps.mirror(view)
