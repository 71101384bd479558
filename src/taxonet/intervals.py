"""Intervals of measured figures: Wilson's for shares, the bootstrap over pictures for everything else."""

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Interval = tuple[float, float]

LEVEL = 0.95
Z = NormalDist().inv_cdf((1 + LEVEL) / 2)
RESAMPLES = 1000
SEED = 0x7A0  # fixed: the same pictures give the same interval


def wilson(hits: int, n: int) -> Interval | None:
    """Wilson's 95 % score interval of a share of `hits` in `n` (Wilson 1927), None without samples."""
    if n == 0:
        return None
    share = hits / n
    middle = share + Z * Z / (2 * n)
    half = Z * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    low, high = (middle - half) / (1 + Z * Z / n), (middle + half) / (1 + Z * Z / n)
    return (low if hits else 0.0), (high if hits < n else 1.0)  # rounding aside, these ends are exact


def bootstrap(
    figures: Callable[[NDArray[np.int64]], Mapping[str, float]],
    n: int,
    names: Sequence[str],
    resamples: int = RESAMPLES,
) -> dict[str, Interval | None]:
    """95 % percentile intervals (Efron 1979) of figures that are computed from the places of resampled pictures.

    A figure that no resample moves gets None: pictures that are all right say nothing about those that would be wrong.

    Args:
        figures: the figures, by name, of the pictures at the given places, (n,).
        n: how many pictures there are.
        names: which figures are wanted.
        resamples: how often n pictures are drawn with replacement.
    """
    rng = np.random.default_rng(SEED)
    drawn = [figures(rng.integers(0, n, n)) for _ in range(resamples)]
    table = np.array([[found[name] for name in names] for found in drawn])
    tail = 50 * (1 - LEVEL)
    low, high = np.nanpercentile(table, [tail, 100 - tail], axis=0)
    return {name: (float(a), float(b)) if b > a else None for name, a, b in zip(names, low, high, strict=True)}
