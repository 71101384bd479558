"""TrivialAugment, wide: one random operation of random strength (Müller and Hutter 2021, arXiv:2103.10158)."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

BINS = 31  # strengths from the weakest to the strongest, both included


@dataclass(frozen=True)
class Operation:
    """`apply(image, magnitude)`; the magnitude runs from `weakest` to `strongest`, with a random sign if `signed`."""

    apply: Callable[[Image.Image, float], Image.Image]
    weakest: float = 0.0
    strongest: float = 0.0
    signed: bool = False


def _affine(image: Image.Image, *row_major: float) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, row_major)


OPERATIONS = {
    "identity": Operation(lambda image, _: image),
    "autocontrast": Operation(lambda image, _: ImageOps.autocontrast(image)),
    "equalize": Operation(lambda image, _: ImageOps.equalize(image)),
    "rotate": Operation(lambda image, m: image.rotate(m), 0, 135, signed=True),
    "solarize": Operation(lambda image, m: ImageOps.solarize(image, round(m)), 256, 0),
    "posterize": Operation(lambda image, m: ImageOps.posterize(image, round(m)), 8, 2),
    "color": Operation(lambda image, m: ImageEnhance.Color(image).enhance(1 + m), 0, 0.99, signed=True),
    "contrast": Operation(lambda image, m: ImageEnhance.Contrast(image).enhance(1 + m), 0, 0.99, signed=True),
    "brightness": Operation(lambda image, m: ImageEnhance.Brightness(image).enhance(1 + m), 0, 0.99, signed=True),
    "sharpness": Operation(lambda image, m: ImageEnhance.Sharpness(image).enhance(1 + m), 0, 0.99, signed=True),
    "shear_x": Operation(lambda image, m: _affine(image, 1, m, 0, 0, 1, 0), 0, 0.99, signed=True),
    "shear_y": Operation(lambda image, m: _affine(image, 1, 0, 0, m, 1, 0), 0, 0.99, signed=True),
    "translate_x": Operation(lambda image, m: _affine(image, 1, 0, m, 0, 1, 0), 0, 32, signed=True),
    "translate_y": Operation(lambda image, m: _affine(image, 1, 0, 0, 0, 1, m), 0, 32, signed=True),
}

_NAMES = tuple(OPERATIONS)


def trivial_augment(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Return `image` (RGB or L) after one operation drawn from `OPERATIONS`, its strength drawn evenly from `BINS`."""
    operation = OPERATIONS[_NAMES[rng.integers(len(_NAMES))]]
    share = rng.integers(BINS) / (BINS - 1)
    magnitude = operation.weakest + share * (operation.strongest - operation.weakest)
    if operation.signed and rng.random() < 0.5:
        magnitude = -magnitude
    return operation.apply(image, float(magnitude))
