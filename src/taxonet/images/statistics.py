"""Four figures of a picture as the network sees it, and what they are like over many pictures."""

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

FEATURES = ("brightness", "contrast", "colourfulness", "sharpness")
EVERY = 4  # rows and columns; means need no more


def features(pixels: NDArray[np.uint8]) -> list[float]:
    """Brightness, contrast, colourfulness and sharpness, each from 0 to 1, of a picture's pixels (H, W, C) uint8.

    The mean and the standard deviation of grey, the mean of the largest less the smallest channel, and the mean
    difference of neighbouring places, in units of 255.
    """
    few = pixels[::EVERY, ::EVERY].astype(np.float32) / 255
    planes = [few[..., channel] for channel in range(few.shape[2])]
    grey = sum(planes[1:], planes[0]) / len(planes)
    colour = functools.reduce(np.maximum, planes) - functools.reduce(np.minimum, planes)
    edges = (np.abs(grey[1:] - grey[:-1]).mean() + np.abs(grey[:, 1:] - grey[:, :-1]).mean()) / 2
    return [round(float(value), 5) for value in (grey.mean(), grey.std(), colour.mean(), edges)]


def statistics(rows: Iterable[Sequence[float]]) -> dict[str, Any]:
    """What a bundle keeps of its training pictures: `{"n", "features": {name: {"mean", "std"}}}`."""
    table = np.array(list(rows), np.float64).reshape(-1, len(FEATURES))
    named = zip(FEATURES, table.mean(axis=0), table.std(axis=0), strict=True)
    return {
        "n": len(table),
        "features": {name: {"mean": round(float(m), 5), "std": round(float(s), 5)} for name, m, s in named},
    }
