"""RandAugment: a fixed number of random operations of one fixed strength (Cubuk et al. 2019, arXiv:1909.13719, §3).

The paper draws from 14 operations and takes their ranges from AutoAugment (arXiv:1805.09501, Table 6), on a linear
scale of which 10 is the end of the range; its §4 goes on to 30 for large networks. Two readings are ours: the strength
of solarize and posterize grows with the magnitude (the authors' code lets it fall), and a translation is a share of
the side (AutoAugment's 150 pixels of 331), so that it means the same at every size.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from taxonet.images.trivial_augment import OPERATIONS as IMAGE_OPERATIONS

SCALE = 10  # the magnitude at which an operation reaches the end of AutoAugment's range
STRONGEST = 30  # of the paper


@dataclass(frozen=True)
class Range:
    """The strength of an operation at magnitude 0 and at `SCALE`, and what it cannot pass beyond it."""

    start: float = 0.0
    end: float = 0.0
    signed: bool = False
    limit: float | None = None

    def at(self, magnitude: float) -> float:
        """The strength on the line through both ends, held at `limit`."""
        value = self.start + (self.end - self.start) * magnitude / SCALE
        if self.limit is None:
            return value
        return max(value, self.limit) if self.end < self.start else min(value, self.limit)


RANGES = {
    "identity": Range(),
    "autocontrast": Range(),
    "equalize": Range(),
    "rotate": Range(0, 30, signed=True),  # degrees
    "solarize": Range(256, 0, limit=0),  # pixels from this value on are inverted
    "color": Range(0, 0.9, signed=True),  # AutoAugment's factors 0.1 to 1.9
    "posterize": Range(8, 4, limit=1),  # bits that are kept
    "contrast": Range(0, 0.9, signed=True),
    "brightness": Range(0, 0.9, signed=True),
    "sharpness": Range(0, 0.9, signed=True),
    "shear_x": Range(0, 0.3, signed=True),
    "shear_y": Range(0, 0.3, signed=True),
    "translate_x": Range(0, 150 / 331, signed=True),  # of the width
    "translate_y": Range(0, 150 / 331, signed=True),  # of the height
}

_NAMES = tuple(RANGES)
_SIDES: dict[str, Callable[[Image.Image], int]] = {
    "translate_x": lambda image: image.width,
    "translate_y": lambda image: image.height,
}


def rand_augment(image: Image.Image, count: int, magnitude: float, rng: np.random.Generator) -> Image.Image:
    """Return `image` (RGB or L) after `count` operations, each drawn evenly from `RANGES`, with repetition."""
    for _ in range(count):
        name = _NAMES[rng.integers(len(_NAMES))]
        strength = RANGES[name].at(magnitude)
        if RANGES[name].signed and rng.random() < 0.5:
            strength = -strength
        if name in _SIDES:
            strength *= _SIDES[name](image)
        image = IMAGE_OPERATIONS[name].apply(image, float(strength))
    return image
